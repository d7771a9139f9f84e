import json
import logging

from galen.step_log import StepLog

STEP = {
    "loss": 2.0,
    "lr": 1e-4,
    "grad_norm": 0.5,
    "consumed_samples": 8,
    "tokens": 64,
    "tokens_per_second": 10.0,
    "elapsed": 1.0,
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_came_after_the_checkpoint_is_removed(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "log.jsonl"
    log = StepLog(path, 0, 4)
    log.validation(0, 3.0, 100)
    for step in (1, 2, 3):
        log.train({"step": step, **STEP})
    path.write_text(path.read_text() + '{"kind": "tr')  # a kill in the middle of a line
    again = StepLog(path, 2, 4)
    assert [record["step"] for record in again.records] == [0, 1, 2]
    again.train({"step": 3, **STEP})
    assert [(record["kind"], record["step"]) for record in lines(path)] == [
        ("validation", 0),
        ("train", 1),
        ("train", 2),
        ("train", 3),
    ]
    assert "step 0/4 | validation loss 3.0000 over 100 predicted tokens" in caplog.text
    assert (
        "step 3/4 | loss 2.0000 | lr 1.00e-04 | grad norm 0.500 | 10 tokens/s | 00:00 left"
        in caplog.text
    )


def test_after_a_step_back_the_log_and_the_time_left_count_from_there(tmp_path):
    log = StepLog(tmp_path / "log.jsonl", 0, 4)
    for step in (1, 2, 3):
        log.train({"step": step, **STEP})
    log = StepLog(tmp_path / "log.jsonl", 3, 4)
    log.rewind(2)
    log.train({"step": 3, **STEP})
    assert [record["step"] for record in lines(log.path)] == [1, 2, 3]


def test_a_run_that_begins_anew_has_a_new_log(tmp_path):
    StepLog(tmp_path / "log.jsonl", 0, 4).validation(0, 3.0, 100)
    assert StepLog(tmp_path / "log.jsonl", 0, 4).records == []
    assert (tmp_path / "log.jsonl").read_text() == ""
