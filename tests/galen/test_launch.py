"""Processes of a machine: the command's exit code, and nothing behind its last line."""

import argparse
import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from galen import launch
from galen.errors import DataError, UsageError
from tests.conftest import ROOT


def test_exit_code_of_a_run():
    assert launch._exit_code([75, 75], "") == 75
    assert launch._exit_code([1, -15], "") == 1
    assert launch._exit_code([-15, 2, 1], "") == 2
    assert launch._exit_code([-11], "") == 139
    with pytest.raises(
        DataError, match="killed by the system, most likely for lack of memory: take less"
    ):
        launch._exit_code([-9, -15], "take less")
    assert launch._exit_code([-9, 1], "") == 1  # the other reported the cause


def test_a_lost_process_is_reported_without_positions_in_pytorch():
    error = RuntimeError(
        "[/__w/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:33679:"
        " Connection reset by peer. This is typically caused by the remote process crashing."
    )
    expected = r"has ended \(Read error \[127.0.0.1\]:33679: Connection reset by peer\)\. If it"
    with pytest.raises(DataError, match=expected), launch.report_lost_nodes("take less"):
        raise error


def test_an_error_that_a_process_printed_is_not_printed_again(tmp_path):
    def failures(printed):
        extra = {"py_callstack": "", "timestamp": "1", "exit_code": 1, "printed": printed}
        (tmp_path / "error.json").write_text(
            json.dumps({"message": {"message": "rank 0 has ended", "extraInfo": extra}})
        )
        return [
            ProcessFailure(0, 5, -9, str(tmp_path / "none")),
            ProcessFailure(1, 6, -15, str(tmp_path / "error.json")),
        ]

    assert launch._failed(failures(printed=True), "take less") == 1
    with pytest.raises(DataError, match="rank 0 has ended"):
        launch._failed(failures(printed=False), "take less")


def options(**changes):
    return argparse.Namespace(
        **{"nproc_per_node": 2, "nnodes": 1, "rdzv_endpoint": None, **changes}
    )


def test_contradictory_options(monkeypatch):
    with pytest.raises(UsageError, match="--nnodes needs --rdzv-endpoint HOST:PORT"):
        launch.start(options(nnodes=2), "a.module", [], "")
    with pytest.raises(
        UsageError, match="--nproc-per-node None --nnodes 2: each must be at least 1"
    ):
        launch.start(options(nproc_per_node=None, nnodes=2), "a.module", [], "")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="call the command without torchrun or srun"):
        launch.start(options(), "a.module", [], "")


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
import argparse
from pathlib import Path
from galen import cli, launch

options = argparse.Namespace(nproc_per_node=2, nnodes=1, rdzv_endpoint=None)
cli.run(lambda: launch.start(options, {program}, [], "take less"))
"""


def late(folder, first, program="'late'"):
    """Return how a run ends whose first process acts before it meets the other's mistake."""
    (folder / "late.py").write_text(LATE.replace("{first}", first))
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", START.format(program=program)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_an_error_that_another_process_meets_first_is_reported(tmp_path):
    done = late(tmp_path, "time.sleep(60)")
    assert (done.returncode, done.stderr) == (2, "error: what is wrong\n")


@pytest.mark.slow
def test_a_first_process_that_is_terminated_while_it_reports_an_error_reports_it_once(tmp_path):
    slow_print = (
        "print = builtins.print; builtins.print = lambda *a, **k: (print(*a, **k), time.sleep(5))"
    )
    done = late(tmp_path, f"import builtins; {slow_print}", f"Path({str(tmp_path / 'late.py')!r})")
    assert (done.returncode, done.stderr) == (2, "error: what is wrong\n")


@pytest.mark.slow
def test_the_processes_end_with_a_launcher_that_is_killed(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\nfrom galen import cli\n\n\ndef main():\n    os.mkdir('up-' +"
        " os.environ['RANK'])\n    assert 'GALEN_LAUNCHER' not in os.environ\n"
        "    time.sleep(60)\n\n\ncli.run(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", START.format(program="'slow'")]
    launcher = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        waiting_for(lambda: len(list(tmp_path.glob("up-*"))) == 2)
        started = psutil.Process(launcher.pid).children()
        assert len(started) == 2
    finally:
        launcher.kill()
        launcher.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def waiting_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_whose_launcher_has_ended_ends(tmp_path):
    """It died before the process could ask to end with it."""
    code = "from galen import cli; cli.run(lambda: print('works'))"
    for launcher, printed in ((os.getpid(), "works\n"), (0, "")):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GALEN_LAUNCHER": str(launcher)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == (printed, "")


def test_command_that_resumes_a_run(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(
        sys, "orig_argv", ["/usr/bin/python3", "-m", "megatron_ext.pretrain", "my recipe.yaml"]
    )
    assert launch.command() == "python3 -m megatron_ext.pretrain 'my recipe.yaml'"
    monkeypatch.setattr(
        sys,
        "orig_argv",
        ["/usr/bin/python3", "/opt/bin/torchrun", "--nproc-per-node", "2", "-m", "m"],
    )
    assert launch.command() == "torchrun --nproc-per-node 2 -m m"
    monkeypatch.setenv("GALEN_API_FUNCTION", "galen.api.finetune")
    assert launch.command() == "the same call of galen.api.finetune"
