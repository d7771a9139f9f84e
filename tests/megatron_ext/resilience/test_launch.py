"""A run that the launcher started: its exit code, and nothing behind its last line."""

import json
import os
import signal
import socket
import subprocess
import time

import psutil
import pytest

from tests.conftest import ROOT, command
from tests.megatron_ext.conftest import RECIPE


def launched(folder, *words, **paths):
    """Start a run that goes on for ever; return the launcher and the file of what it writes."""
    recipe = folder / "r.yaml"
    recipe.write_text(RECIPE.format(output=folder / "out", **paths))
    written = folder / f"written_{time.monotonic_ns()}"
    arguments = command(
        "-m",
        "megatron_ext.pretrain",
        *words,
        recipe,
        "training.train_iters=100000",
        "data.warn_above_epochs=1e6",
    )
    with written.open("w") as file:
        started = subprocess.Popen(
            arguments, cwd=ROOT, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    return started, written


def await_first_step(folder, *started):
    log = folder / "out/log.jsonl"
    while not (log.exists() and '"train"' in log.read_text()):
        assert all(launcher.poll() is None for launcher in started)
        time.sleep(0.05)


@pytest.mark.multiprocess
def test_the_only_process_is_killed(checkpoint, data, tmp_path):
    started, written = launched(tmp_path, "--nproc-per-node", 1, checkpoint=checkpoint, data=data)
    await_first_step(tmp_path, started)
    psutil.Process(started.pid).children()[0].kill()
    assert started.wait(300) == 1
    said = written.read_text()
    assert said.splitlines()[-1].startswith(
        "error: a process of the run was killed by the system, most likely for lack of memory"
    )
    assert "Traceback" not in said


@pytest.mark.multiprocess
def test_termination_of_one_launcher_ends_both_machines(checkpoint, data, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    words = ["--nproc-per-node", 1, "--nnodes", 2, "--rdzv-endpoint", meeting]
    both = [launched(tmp_path, *words, checkpoint=checkpoint, data=data) for _ in range(2)]
    try:
        await_first_step(tmp_path, *(started for started, _ in both))
        both[1][0].send_signal(signal.SIGTERM)
        assert [started.wait(300) for started, _ in both] == [75, 75]
    finally:
        for started, _ in both:
            started.kill()
    stopped = json.loads((tmp_path / "out/stopped.json").read_text())
    assert stopped["reason"] == "SIGTERM"
    said = "".join(written.read_text() for _, written in both)
    assert "Traceback" not in said
    command_line = (
        f"-m megatron_ext.pretrain --nproc-per-node 1 --nnodes 2 --rdzv-endpoint {meeting}"
        f" {tmp_path / 'r.yaml'}"
    )
    # PyTorch's store of the second launcher can warn after it that the first has ended
    resume = f"iter_{stopped['iteration']:07d}; to resume: "
    assert any(resume in line and command_line in line for line in said.splitlines()), said
