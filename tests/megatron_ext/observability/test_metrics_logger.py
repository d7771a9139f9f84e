import contextlib
import json
import struct
import time

import psutil
import pytest

from galen.errors import UsageError
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.run_sections import Wandb
from megatron_ext.observability import wandb_logger
from megatron_ext.observability.metrics_logger import RunLog
from tests.megatron_ext.config.test_recipe import TEXT

RECORD = {
    "loss": 2.5,
    "lr": 1e-3,
    "grad_norm": 1.5,
    "tokens": 256,
    "tokens_per_second": 10.0,
    "mfu": None,
    "elapsed": 1.0,
}


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")


def history(file):
    """Return what a run logged to Weights & Biases, from the file of its offline mode."""
    from wandb.proto import wandb_internal_pb2

    records, runs, ended = [], set(), False
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            records.append(
                {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
            )
        if record.WhichOneof("record_type") == "run":
            runs.add(record.run.run_id)
        ended |= record.WhichOneof("record_type") == "exit"
    return records, runs, ended


def wait_for_end(file):
    """Return the same once it is all written: another process of Weights & Biases does that."""
    deadline = time.monotonic() + 120
    while not (recorded := history(file))[2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return recorded[:2]


def log_records(data):
    """Yield the records of a file in LevelDB's log format, with a 7-byte header of its own."""
    offset, fragment = 7, b""
    while offset + 7 <= len(data):
        remaining = 32768 - offset % 32768
        if remaining < 7:  # the rest of a block is padding
            offset += remaining
            continue
        _, length, kind = struct.unpack_from("<IHB", data, offset)
        fragment += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # complete, or the last fragment
            yield fragment
            fragment = b""


def test_weights_and_biases_offline(tmp_path, monkeypatch, capfd):
    """Two starts of a run log to the same run at Weights & Biases.

    They log steps and validations with their names; nothing holds the key.
    """
    wandb = pytest.importorskip("wandb")
    key, commands = "5e0717e1" * 5, []
    monkeypatch.setenv("WANDB_API_KEY", key)
    (tmp_path / "recipe.yaml").write_text("output: x\n")
    for done in (0, 1):
        run = wandb_logger.start(
            Wandb(project="galen-tests", name="two starts", tags=["ci"], mode="offline"), tmp_path
        )
        assert (run.project, run.name, run.tags) == ("galen-tests", "two starts", ("ci",))
        log = RunLog(tmp_path, done, 3, run)
        log.train({"step": done + 1, **RECORD, "loss": 2.5 - done})
        log.validation(done + 1, 2.25, 64)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # wandb asks git, which may have ended by now
                commands.append(" ".join(child.cmdline()))
        log.close()
    recorded = [
        wait_for_end(file) for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    ]
    lines = [line for lines, _ in recorded for line in lines]
    assert sorted((line["step"], line["train/loss"]) for line in lines if "train/loss" in line) == [
        (1, 2.5),
        (2, 1.5),
    ]
    assert [line["validation/loss"] for line in lines if "validation/loss" in line] == [2.25, 2.25]
    runs = set().union(*(runs for _, runs in recorded))
    assert runs == {(tmp_path / "wandb_id.txt").read_text().strip()}
    wandb.teardown()  # it remembers the key for what this process starts next
    printed = capfd.readouterr()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("wandb" in command for command in commands) and len(files) > 4
    assert key not in printed.out + printed.err + "".join(
        commands
    ) and key.encode() not in b"".join(files)


def test_enabled_without_a_key(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "recipe.yaml").write_text("output: x\n")
    with pytest.raises(UsageError, match="Set WANDB_API_KEY or run `wandb login`"):
        wandb_logger.start(Wandb(project="galen-tests", mode="online"), tmp_path)


def test_enabled_but_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    wandb_logger.check(None)
    with pytest.raises(UsageError, match="wandb is not installed"):
        wandb_logger.check(Wandb(project="x"))


def test_in_the_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    assert load(Recipe, tmp_path / "r.yaml").wandb is None
    options = load(Recipe, tmp_path / "r.yaml", ["wandb.project=p", "wandb.mode=offline"]).wandb
    assert (options.project, options.mode) == ("p", "offline")
    for override, message in [
        ("wandb.name=x", "key 'wandb.project' is missing"),
        ("wandb.projekt=x", "did you mean 'project'?"),
        ("wandb={project: x, mode: shared}", "'online' or 'offline'"),
    ]:
        with pytest.raises(UsageError, match=message.replace("?", r"\?")):
            load(Recipe, tmp_path / "r.yaml", [override])


def test_not_enabled(tmp_path):
    assert wandb_logger.start(None, tmp_path) is None
    log = RunLog(tmp_path, 0, 1)
    log.train({"step": 1, **RECORD})
    log.close()
    assert not (tmp_path / "wandb").exists() and list((tmp_path / "tensorboard").iterdir())
