"""Processes of a machine: the run's exit code, and nothing behind its last line."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from galen.errors import DataError, UsageError
from megatron_ext import launch
from tests.conftest import ROOT, command
from tests.megatron_ext.conftest import RECIPE


def test_the_code_of_a_run():
    assert launch._code([75, 75]) == 75
    assert launch._code([1, -15]) == 1
    assert launch._code([-15, 2, 1]) == 2
    assert launch._code([-11]) == 139
    with pytest.raises(DataError, match="killed by the system, most likely for lack of memory"):
        launch._code([-9, -15])
    assert launch._code([-9, 1]) == 1  # the other has said it


def options(**given):
    return argparse.Namespace(**{"nproc_per_node": 2, "nnodes": 1, "rdzv_endpoint": None, **given})


def test_options_that_do_not_fit(monkeypatch):
    with pytest.raises(UsageError, match="--nnodes needs --rdzv-endpoint HOST:PORT"):
        launch.start(options(nnodes=2), "megatron_ext.pretrain", [])
    with pytest.raises(UsageError, match="--nproc-per-node None --nnodes 2: each is at least 1"):
        launch.start(options(nproc_per_node=None, nnodes=2), "megatron_ext.pretrain", [])
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="call it without torchrun or srun"):
        launch.start(options(), "megatron_ext.pretrain", [])


LATE = """
import os, time
from galen import cli
from galen.errors import UsageError

def main():
    if os.environ["LOCAL_RANK"] == "0":
        {first}
    raise UsageError("what is wrong")

cli.run(main)
"""
START = """
import argparse, sys
from megatron_ext import launch

sys.exit(launch.start(argparse.Namespace(nproc_per_node=2, nnodes=1, rdzv_endpoint=None), "late", []))
"""


def late(folder, first):
    """Return how a run ends whose first process does something before it meets the mistake that the other meets."""
    (folder / "late.py").write_text(LATE.replace("{first}", first))
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True)


def test_a_mistake_that_another_process_meets_first_is_told(tmp_path):
    done = late(tmp_path, "time.sleep(60)")
    assert (done.returncode, done.stderr) == (2, "error: what is wrong\n")


def test_a_mistake_is_told_once_by_a_first_process_that_is_asked_to_end_while_it_tells(tmp_path):
    told = "print = builtins.print; builtins.print = lambda *a, **k: (print(*a, **k), time.sleep(5))"
    done = late(tmp_path, f"import builtins; {told}")
    assert (done.returncode, done.stderr) == (2, "error: what is wrong\n")


def test_the_command_to_go_on(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "megatron_ext.pretrain", "my recipe.yaml"])
    assert launch.command() == "python3 -m megatron_ext.pretrain 'my recipe.yaml'"
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "/opt/bin/torchrun", "--nproc-per-node", "2", "-m", "m"])
    assert launch.command() == "torchrun --nproc-per-node 2 -m m"


def launched(folder, *words, **places):
    """Start a run that goes on for ever; return the launcher and the file of what it writes."""
    recipe = folder / "r.yaml"
    recipe.write_text(RECIPE.format(output=folder / "out", **places))
    written = folder / f"written_{time.monotonic_ns()}"
    arguments = command("-m", "megatron_ext.pretrain", *words, recipe, "training.train_iters=100000", "data.warn_above_epochs=1e6")
    with written.open("w") as file:
        started = subprocess.Popen(arguments, cwd=ROOT, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
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
    assert said.splitlines()[-1].startswith("error: a process of the run was killed by the system, most likely for lack of memory")
    assert "Traceback" not in said


@pytest.mark.multiprocess
def test_two_machines_and_one_launcher_is_asked_to_end(checkpoint, data, tmp_path):
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
    command_line = f"-m megatron_ext.pretrain --nproc-per-node 1 --nnodes 2 --rdzv-endpoint {meeting} {tmp_path / 'r.yaml'}"
    assert f"iter_{stopped['iteration']:07d}; to go on: " in said.splitlines()[-1] and command_line in said.splitlines()[-1], said
