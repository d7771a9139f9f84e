"""A converter killed with SIGKILL at any point, started again with the same command, gives the same bytes."""

import json
import subprocess
import time

import psutil
import pytest

from checkpoints_convert import hf_to_megatron
from tests.conftest import ROOT, command, run

POINTS = 16


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("qwen2")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "megatron"
    hf_to_megatron.main(["--hf", str(model), "--output", str(folder)])
    return folder


@pytest.mark.parametrize("script", ["hf_to_megatron", "megatron_to_hf"])
def test_killed_at_many_points(tmp_path, model, checkpoint, script):
    given = model if script == "hf_to_megatron" else checkpoint
    seen = json.loads(run("-m", "tests.checkpoints_convert.killed_at", script, given, tmp_path, POINTS).stdout)
    assert seen["wrong"] == []
    assert seen["touched"] > 2 * POINTS
    assert seen["killed"] >= POINTS - 2  # two threads: the last points may come a little earlier in one run than in another
    assert seen["went_on"] > POINTS / 3


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Killed with SIGKILL it cannot stop them; going on they would write into the files of the next start."""
    with subprocess.Popen(
        command("-m", "tests.checkpoints_convert.endless_steps", tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL
    ) as parent:
        while not (workers := [int(path.name) for path in tmp_path.glob("pids/*")]) or len(workers) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    while any(alive(worker) for worker in workers):
        time.sleep(0.05)  # pytest's time limit ends a test that waits in vain


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
