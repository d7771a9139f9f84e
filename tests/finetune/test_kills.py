"""SIGKILL at random moments: a rerun gives the same bytes as a run that was never killed.

GALEN_KILLS is the number of kills of each command (default 2); the seed is fixed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import time

import pytest
import yaml

from galen import manifest
from tests.finetune.test_train import log_of

KILLS = int(os.environ.get("GALEN_KILLS", "2"))
PASSING = ("created", "seconds_since_start", "elapsed", "tokens_per_second")


@pytest.fixture(scope="module")
def model(make_llama):
    return make_llama(
        num_hidden_layers=2, hidden_size=64, intermediate_size=128, max_position_embeddings=512
    )


def killed(start, module, arguments, seed, seconds):
    """Start a command and kill it within `seconds`, KILLS times, then run it to its end.

    Return how often it was killed.
    """
    draw, kills = random.Random(seed), 0
    for _ in range(KILLS):
        started = start(1, *arguments, module=module)
        time.sleep(draw.uniform(0, seconds))
        for pid in started.pids:
            with contextlib.suppress(ProcessLookupError):  # done already
                os.kill(pid, signal.SIGKILL)
        codes, _ = started.wait()
        kills += codes == [-signal.SIGKILL]
    codes, written = start(1, *arguments, module=module).wait()
    assert codes == [0], written[-3000:]
    assert "Traceback" not in written
    return kills


def timed(start, module, arguments):
    """Run a command to its end; return how long that took."""
    began = time.monotonic()
    codes, written = start(1, *arguments, module=module).wait()
    assert codes == [0], written[-3000:]
    return time.monotonic() - began


def content(folder, name):
    """Return a file's bytes; of JSON what does not hang on the time or on where the folder lies."""
    data = (folder / name).read_bytes()
    if not name.endswith(("manifest.json", ".jsonl")):
        return data
    lines = [
        json.loads(line) for line in (data.splitlines() if name.endswith(".jsonl") else [data])
    ]
    return [_lasting(line) for line in lines]


def _lasting(value):
    if isinstance(value, dict):
        hash_of_log = str(value.get("path", "")).endswith(("log.jsonl", "recipe.yaml"))
        skipped = (*PASSING, "output", *(("sha256", "bytes") if hash_of_log else ()))
        return {key: _lasting(item) for key, item in value.items() if key not in skipped}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def same(first, second, skip=()):
    names = [
        sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and not str(path.relative_to(folder)).startswith(skip)
        )
        for folder in (first, second)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        assert content(first, name) == content(second, name), name
    assert not list(second.parent.glob(".*.partial")) and not list(second.parent.glob(".*.lock"))


@pytest.mark.slow
def test_training(start_forked, recipe_file, tmp_path):
    """Also with a merged model.

    Checkpoints of steps that a kill came between may differ, and are no result.
    """
    common = [recipe_file, "lora.merge=true", "training.save_interval=2"]
    seconds = timed(start_forked, "finetune.train", [*common, f"output={tmp_path / 'whole'}"])
    killed(start_forked, "finetune.train", [*common, f"output={tmp_path / 'run'}"], 1, seconds)
    same(
        tmp_path / "whole",
        tmp_path / "run",
        skip=("checkpoints", "recipe.yaml", "log.jsonl", "configuration.json"),
    )
    assert [_lasting(record) for record in log_of(tmp_path / "whole")] == [
        _lasting(record) for record in log_of(tmp_path / "run")
    ]


def test_merging(start_forked, model, tmp_path):
    pytest.importorskip("mergekit")
    shutil.copytree(model, tmp_path / "other")
    models = [
        {"model": str(folder), "parameters": {"weight": 0.5}}
        for folder in (model, tmp_path / "other")
    ]
    configuration = {"merge_method": "linear", "dtype": "float32", "models": models}
    (tmp_path / "merge.yaml").write_text(
        yaml.safe_dump({"mergekit": configuration, "output": "unused"})
    )
    seconds = timed(
        start_forked, "finetune.merge", [tmp_path / "merge.yaml", f"output={tmp_path / 'whole'}"]
    )
    killed(
        start_forked,
        "finetune.merge",
        [tmp_path / "merge.yaml", f"output={tmp_path / 'run'}"],
        2,
        seconds,
    )
    same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_quantizing(start_forked, model, question_file, tmp_path):
    """Speeds differ by their nature; the folders and the accuracies are the same."""
    pytest.importorskip("bitsandbytes")
    common = [
        "--model",
        model,
        "--methods",
        "bnb8",
        "--questions",
        question_file,
        "--limit",
        "4",
        "--output",
    ]
    seconds = timed(start_forked, "finetune.quantize", [*common, tmp_path / "whole"])
    killed(start_forked, "finetune.quantize", [*common, tmp_path / "run"], 3, seconds)
    same(tmp_path / "whole" / "bnb8", tmp_path / "run" / "bnb8")
    answers = [
        json.loads((tmp_path / name / "bnb8.json").read_text())["measured"]["correct"]
        for name in ("whole", "run")
    ]
    assert answers[0] == answers[1] and len(answers[0]) == 4


def test_exporting(start_forked, model, tmp_path):
    run = tmp_path / "trained"
    shutil.copytree(model, run / "model")
    training = {
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "seed": 1,
    }
    optimizer = {
        "lr": 1,
        "lr_decay_style": "cosine",
        "lr_warmup_fraction": 0,
        "weight_decay": 0,
    }
    data = {
        "train": "train.jsonl",
        "protocol": "lm_eval",
        "max_length": 9,
        "decontaminate_against": [],
    }
    config = {"model": {"path": str(model), "quantization": None}, "lora": None, "data": data}
    counts = {
        "processes": 1,
        "trained_weights": 1,
        "steps": 1,
        "best_step": None,
        "tokens": 1,
        "samples": {"train": 1, "validation": 0},
    }
    counts["records"] = {"excluded_as_contaminated": 0}
    config["training"] = training
    config["optimizer"] = optimizer
    manifest.write(
        run / "manifest.json", stage="finetune", inputs=[], config=config, outputs=[], counts=counts
    )
    common = ["--run", run, "--name", "n", "--license", "MIT", "--output"]
    seconds = timed(start_forked, "finetune.export", [*common, tmp_path / "whole"])
    killed(start_forked, "finetune.export", [*common, tmp_path / "run"], 4, seconds)
    same(tmp_path / "whole", tmp_path / "run")


def test_adding_up_answers(start_forked, tmp_path):
    item = {
        "id": "1",
        "answer": "A",
        "prediction": "A",
        "correct": True,
        "logprobs": {"A": -0.5, "B": -1.0},
    }
    value = {"value": 1.0, "low": 0.2, "high": 1.0}
    task = {
        "kind": "multiple_choice",
        "samples": 200,
        "chance": 0.5,
        "interval": "wilson",
        "metrics": {"accuracy": value},
    }
    for name in "ab":
        (tmp_path / name / "samples").mkdir(parents=True)
        lines = "".join(json.dumps(item | {"id": str(number)}) + "\n" for number in range(200))
        (tmp_path / name / "samples" / "t.jsonl").write_text(lines)
        results = {
            "model": {"name": name, "path": name, "adapter": None},
            "protocol": "lm_eval",
            "tasks": {"t": task},
        }
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    scores = [str(tmp_path / name) for name in "ab"]
    (tmp_path / "merge.yaml").write_text(
        yaml.safe_dump({"ensemble": {"scores": scores}, "output": "unused"})
    )
    seconds = timed(
        start_forked, "finetune.merge", [tmp_path / "merge.yaml", f"output={tmp_path / 'whole'}"]
    )
    killed(
        start_forked,
        "finetune.merge",
        [tmp_path / "merge.yaml", f"output={tmp_path / 'run'}"],
        5,
        seconds,
    )
    same(tmp_path / "whole", tmp_path / "run")
