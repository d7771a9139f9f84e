"""Random moments at which a test kills a run; the kill must leave no trace in its results."""

import contextlib
import os
import random
import shutil
import time

from megatron_ext.checkpoint import checkpoint_folder
from tests.megatron_ext.conftest import log

LATE = 40  # a run that finished before its kill is rewound to this step


def new_random():
    """Return a generator and print its seed, which GALEN_TEST_SEED sets."""
    seed = int(os.environ.get("GALEN_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"GALEN_TEST_SEED={seed}")
    return random.Random(seed)


def last_step(output):
    path = output / "log.jsonl"
    return path.read_bytes().count(b'"train"') if path.exists() else 0


def being_saved(output, since):
    """Return whether a checkpoint begun after the moment `since` is being written.

    A kill leaves older ones.
    """
    for folder in (output / "checkpoints").glob(".iter_*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime > since:
                return True
    return False


def await_moment(kind, output, seeded, describe=str):
    """Wait for a moment: at process start, some steps later, or while a checkpoint is written.

    Return whether it came before the run was finished.
    """
    now = time.time()
    start_step = last_step(output)
    steps = seeded.randint(1, 5)
    pause = seeded.uniform(0, 0.05)
    deadline = time.monotonic() + 900
    if kind == "start":
        time.sleep(seeded.uniform(0, 2))
        return not (output / "manifest.json").exists()

    def has_come():
        if kind == "save":
            return being_saved(output, now)
        return last_step(output) >= start_step + steps

    while not has_come():
        if (output / "manifest.json").exists():
            return False
        assert time.monotonic() < deadline, f"no {kind} within 900 s\n{describe()}"
        time.sleep(0.001)
    time.sleep(pause)
    return not (output / "manifest.json").exists()


def rewind(output, step):
    """Make a finished run look as if it had been killed after the checkpoint of `step`."""
    (output / "manifest.json").unlink()
    (output / "checkpoints" / checkpoint_folder.LATEST).write_text(str(step))
    for folder in (output / "checkpoints").glob("iter_*"):
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)


def assert_same_losses(killed, undisturbed):
    """Compare every step of two finished runs, to the last bit."""
    lines = [_steps(output) for output in (undisturbed, killed)]
    assert lines[0] and lines[0] == lines[1]


def _steps(output):
    names = ("step", "loss", "grad_norm", "consumed_samples")
    return [tuple(record[name] for name in names) for record in log(output, "train")]
