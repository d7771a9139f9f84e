"""Processes of one machine: the run's exit code, and nothing behind its last line."""

import os
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


def test_not_under_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="call it without torchrun or srun"):
        launch.start(2, "megatron_ext.pretrain", [])


def test_the_command_to_go_on(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "megatron_ext.pretrain", "my recipe.yaml"])
    assert launch.command() == "python3 -m megatron_ext.pretrain 'my recipe.yaml'"
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "/opt/bin/torchrun", "--nproc-per-node", "2", "-m", "m"])
    assert launch.command() == "torchrun --nproc-per-node 2 -m m"


@pytest.mark.multiprocess
def test_the_only_process_is_killed(checkpoint, data, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=tmp_path / "out", checkpoint=checkpoint, data=data))
    words = command("-m", "megatron_ext.pretrain", "--nproc-per-node", 1, tmp_path / "r.yaml", "training.train_iters=100000")
    started = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "out/log.jsonl").exists():
        assert started.poll() is None
        time.sleep(0.05)
    psutil.Process(started.pid).children()[0].kill()
    _, written = started.communicate(timeout=300)
    assert started.returncode == 1
    assert written.splitlines()[-1].startswith("error: a process of the run was killed by the system, most likely for lack of memory")
    assert "Traceback" not in written
