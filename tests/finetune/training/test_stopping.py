"""A stopped run saves at once, exits with 75, and resumes to the bits of an unstopped run."""

import filecmp
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from finetune import train
from finetune.training import validation_accuracy
from galen import lock
from galen.errors import DataError
from galen.stop_signals import StopSignals
from tests.conftest import ROOT, command, run
from tests.finetune.test_train import log_of

TIMES = ("elapsed", "tokens_per_second")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def signal_after(started, said, number=signal.SIGTERM, to=slice(None)):
    """Send a signal once a forked run has printed something; return exit codes and output."""
    deadline = time.monotonic() + 300
    while said not in started.written.read_text():
        assert time.monotonic() < deadline, started.written.read_text()
        time.sleep(0.001)
    for pid in started.pids[to]:
        os.kill(pid, number)
    return started.wait()


def timeless(folder):
    return [{key: record[key] for key in record if key not in TIMES} for record in log_of(folder)]


def same_result(first, second):
    """Check that two runs have the same result files, byte by byte, and logs but for times."""
    assert timeless(first) == timeless(second)
    names = [path.name for path in (first / "adapter").iterdir()]
    assert filecmp.cmpfiles(first / "adapter", second / "adapter", names, shallow=False) == (
        names,
        [],
        [],
    )
    counts = [
        json.loads((folder / "manifest.json").read_text())["counts"] for folder in (first, second)
    ]
    assert counts[0] | {"seconds_since_start": 0} == counts[1] | {"seconds_since_start": 0}


@pytest.fixture(scope="module")
def long_recipe(tmp_path_factory, tiny_llama, question_file):
    """A recipe that keeps the best by accuracy and would stop early.

    It has 40 validation questions in batches of one.
    """
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {tiny_llama}}}\ndata: {{train: {question_file}, validation_fraction: 0.5,"
        " max_length: 160}\nlora: {r: 4, alpha: 8, dropout: 0.1}\noptimizer: {lr:"
        " 0.01}\ntraining: {train_iters: 16, micro_batch_size: 2, eval_interval: 4,\n"
        "           save_interval: 4, metric_for_best_model: accuracy,\n"
        f"           early_stopping_patience: 3, seed: 5}}\noutput: {folder / 'whole'}\n"
    )
    assert train.main([str(folder / "recipe.yaml")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "number"), [("step 6/16 | loss", signal.SIGTERM), ("step 3/16 | loss", signal.SIGUSR2)]
)
def test_a_signal_brings_a_checkpoint_and_the_run_resumes_to_the_same_bits(
    long_recipe, tmp_path, start_forked, said, number
):
    codes, written = signal_after(
        start_forked(1, long_recipe / "recipe.yaml", f"output={tmp_path / 'run'}"), said, number
    )
    assert codes == [75], written[-3000:]
    assert f"stopped by {number.name} after step" in written
    saved = written.split("checkpoint: ")[1].splitlines()[0]
    assert Path(saved).is_dir()
    assert "resume with: python " in written
    train.main([str(long_recipe / "recipe.yaml"), f"output={tmp_path / 'run'}"])
    same_result(long_recipe / "whole", tmp_path / "run")


@pytest.mark.slow
def test_each_validation_is_broken_off_by_ctrl_c_and_made_when_the_run_goes_on(
    long_recipe, tmp_path, monkeypatch, caplog
):
    """Best validation and the count of those since are the same as in an uninterrupted run."""
    caplog.set_level("INFO")
    arguments = [str(long_recipe / "recipe.yaml"), f"output={tmp_path / 'run'}"]
    score, seen = validation_accuracy.correct, []

    def interrupted(*given):
        """Score; at the first attempt of each validation a Ctrl-C comes first."""
        seen.append(len(seen))
        if seen[-1] % 2 == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return score(*given)

    monkeypatch.setattr(validation_accuracy, "correct", interrupted)
    validations = [
        record["step"] for record in log_of(long_recipe / "whole") if record["kind"] == "validation"
    ]
    for step in validations:
        assert train.main(arguments) == 75
        output = caplog.text
        caplog.clear()
        assert (
            f"stopped by SIGINT after step {step} of 16; checkpoint: " in output
            if step
            else "nothing is saved" in output
        )
    assert train.main(arguments) == 0
    same_result(long_recipe / "whole", tmp_path / "run")


@pytest.mark.multiprocess
def test_the_command_that_a_stopped_run_names_finishes_it(recipe_file, tmp_path):
    words = ["finetune/train.py", "--nproc-per-node", 2, recipe_file]
    words += [
        "training.train_iters=40",
        "training.gradient_accumulation_steps=1",
        "data.validation_fraction=0",
        "training.save_interval=20",
    ]
    with (tmp_path / "said").open("w") as said:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = subprocess.Popen(
            command(*words), cwd=ROOT, stdout=said, stderr=said, env=environment
        )
        while "step 2/40" not in (tmp_path / "said").read_text():
            time.sleep(0.01)
            assert started.poll() is None
        started.send_signal(signal.SIGTERM)
        assert started.wait(300) == 75
    *_, kept, line = (tmp_path / "said").read_text().splitlines()
    assert "stopped by SIGTERM after step " in kept
    assert "resume with: python " in line
    again = line.partition("resume with: ")[2].replace("python", sys.executable, 1)
    subprocess.run(again, shell=True, check=True, timeout=400, capture_output=True, cwd=ROOT)
    assert [
        record["step"] for record in log_of(tmp_path / "run") if record["kind"] == "train"
    ] == list(range(1, 41))
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.multiprocess
def test_one_of_two_processes_is_signaled_and_both_stop(recipe_file, tmp_path, start_forked):
    options = [
        recipe_file,
        "training.gradient_accumulation_steps=1",
        "training.metric_for_best_model=accuracy",
        "training.save_interval=6",
    ]
    assert start_forked(2, *options, f"output={tmp_path / 'whole'}").wait()[0] == [0, 0]
    started = start_forked(2, *options, f"output={tmp_path / 'run'}")
    codes, written = signal_after(started, "step 6/12 | loss", to=slice(1, 2))
    assert codes == [75, 75], written[-3000:]
    assert written.count("stopped by SIGTERM after step") == 1
    assert written.count("resume with: ") == 1
    assert start_forked(2, *options, f"output={tmp_path / 'run'}").wait()[0] == [0, 0]
    same_result(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_run_killed_when_only_its_result_was_missing_trains_no_further(long_recipe, tmp_path):
    """The last step is inside an epoch, where the Trainer would train to the epoch's end."""
    arguments = [
        str(long_recipe / "recipe.yaml"),
        f"output={tmp_path / 'run'}",
        "training.early_stopping_patience=null",
        "training.train_iters=8",
    ]
    train.main(arguments)
    before = timeless(tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    train.main(arguments)
    assert timeless(tmp_path / "run") == before


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # torchrun hands on what all processes had
        assert signals.received == "SIGINT"
        time.sleep(3.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_start_reports_that_another_process_writes_the_run(recipe_file, tmp_path):
    with (
        lock.hold(tmp_path / "run"),
        pytest.raises(DataError, match=rf"is being written by .* \(process {os.getpid()} on "),
    ):
        train.main([str(recipe_file)])
    assert not (tmp_path / "run").exists()


@pytest.mark.multiprocess
def test_a_second_start_of_two_processes_is_reported_in_one_line(recipe_file, tmp_path):
    with lock.hold(tmp_path / "run"):
        done = run("finetune/train.py", recipe_file, "--nproc-per-node", 2, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .* is being written by .*\n", done.stderr)
