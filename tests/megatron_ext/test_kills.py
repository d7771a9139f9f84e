"""Killed with SIGKILL at many random moments, one process or all, a run ends with the bits of one that was left alone."""

import contextlib
import os
import random
import signal
import time

import psutil
import pytest
from safetensors.torch import load_file

from tests.conftest import run
from tests.megatron_ext.conftest import RECIPE, log

KILLS = 20
STEPS = 160
OVERRIDES = [f"training.train_iters={STEPS}", "training.save_interval=4", "training.eval_interval=1000", "training.micro_batch_size=8"]
MOMENTS = ("start", "step", "save")


def weights(output, folder):
    run("checkpoints_convert/megatron_to_hf.py", "--megatron", output / "checkpoints", "--output", folder)
    return load_file(folder / "model.safetensors")


def last_step(output):
    path = output / "log.jsonl"
    return path.read_bytes().count(b'"train"') if path.exists() else 0


def being_saved(output, since):
    """Say whether a checkpoint is being written that was begun after the moment `since`; a kill leaves older ones."""
    for folder in (output / "checkpoints").glob(".iter_*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime > since:
                return True
    return False


def await_moment(kind, output, seeded):
    """Return at a moment of this kind: while the processes start, some steps later, or while a checkpoint is written."""
    if kind == "start":
        return time.sleep(seeded.uniform(0, 2))
    now, begun, steps = time.time(), last_step(output), seeded.randint(1, 5)
    deadline = time.monotonic() + 900
    while not (being_saved(output, now) if kind == "save" else last_step(output) >= begun + steps):
        assert time.monotonic() < deadline, f"no moment of the kind {kind!r} came"
        time.sleep(0.001)
    time.sleep(seeded.uniform(0, 0.05))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.multiprocess
def test_twenty_kills_leave_no_trace(tmp_path, pretrain_forked, start_forked, checkpoint, data):
    layout = ["parallel.pipeline_model_parallel_size=2"]
    undisturbed = pretrain_forked(2, *OVERRIDES, *layout, output=tmp_path / "undisturbed")
    killed, seeded, children = tmp_path / "killed", random.Random(0), []
    killed.mkdir()
    (killed / "given.yaml").write_text(RECIPE.format(output=killed, checkpoint=checkpoint, data=data))
    for number in range(KILLS):
        started = start_forked(2, killed / "given.yaml", *OVERRIDES, *layout)
        await_moment(MOMENTS[number % len(MOMENTS)], killed, seeded)
        assert not (killed / "manifest.json").exists(), "the run finished before all kills were done"
        children += [child for pid in started.pids for child in psutil.Process(pid).children(recursive=True)]
        for pid in seeded.choice([started.pids, started.pids[:1], started.pids[1:]]):
            os.kill(pid, signal.SIGKILL)
        codes, written = started.wait()
        assert -signal.SIGKILL in codes, written[-3000:]
    assert not psutil.wait_procs(children, timeout=300)[1], "processes outlive the one that started them"
    codes, written = start_forked(2, killed / "given.yaml", *OVERRIDES, *layout).wait()
    assert codes == [0, 0], written[-3000:]
    expected, found = weights(undisturbed, tmp_path / "a"), weights(killed, tmp_path / "b")
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name].equal(expected[name]), name
    assert [(r["step"], r["loss"]) for r in log(killed, "train")] == [(r["step"], r["loss"]) for r in log(undisturbed, "train")]
