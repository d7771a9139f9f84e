"""Scoring killed, started twice, and restarted: nothing lost, nothing twice, no stray process."""

import importlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from evaluation import run
from galen.errors import DataError
from tests.conftest import ROOT, command

KILLS = int(os.environ.get("GALEN_KILLS", "4"))
"""Random SIGKILLs; GALEN_KILLS=30 is a long run."""
LINES = {
    "samples/mesh_topics.jsonl",
    "samples/pubmed_perplexity.jsonl",
    "prompts/mesh_topics.jsonl",
}


LIBRARIES = ("transformers.models.llama.modeling_llama", "tokenizers")
"""What a run imports after its start."""


@pytest.fixture
def arguments(tiny_llama, data):
    tasks = ["--tasks", "mesh_topics,pubmed_perplexity", "--data", str(data)]
    return ["--model", str(tiny_llama), *tasks, "--device", "cpu", "--max-batch-tokens", "100"]


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command("evaluation/run.py", *arguments), cwd=ROOT, env=environment, **options
    )


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_command_ends_its_processes(arguments, tmp_path, number):
    process = start(
        *arguments,
        "--output",
        tmp_path / "scores",
        "--processes",
        3,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(children(process.pid)) > 2)  # one of them renders templates
    started = children(process.pid)
    process.send_signal(number)
    process.wait(30)
    wait_for(lambda: all(map(gone, started)), 10)


def test_a_second_start_is_refused(arguments, tmp_path):
    from galen import lock

    with (
        lock.hold(tmp_path / "scores"),
        pytest.raises(
            DataError, match=r"scores is being written by .* \(process \d+ on .*\) since"
        ),
    ):
        run.main([*arguments, "--output", str(tmp_path / "scores")])
    assert not (tmp_path / "scores").exists()


@pytest.mark.multiprocess
def test_random_kills_leave_the_same_bytes(arguments, tmp_path):
    for module in ("evaluation.backends.transformers_backend", *LIBRARIES):
        importlib.import_module(module)  # here, and not in each process
    started = time.monotonic()
    assert end(forked(*arguments, "--output", tmp_path / "whole", "--name", "m")) == 0
    whole_time = time.monotonic() - started
    draw, output = random.Random(14), tmp_path / "killed"
    for _ in range(KILLS):
        process = forked(*arguments, "--output", output, "--name", "m")
        time.sleep(draw.uniform(0.1, 1.1) * whole_time)
        process.kill()
        end(process)
        if (output / "results.json").exists() and (output / "manifest.json").exists():
            check_equal(tmp_path / "whole", output)
            output = output.with_name(output.name + "+")
    assert end(forked(*arguments, "--output", output, "--name", "m")) == 0
    check_equal(tmp_path / "whole", output)
    assert not list(tmp_path.rglob("*.partial"))


def forked(*arguments):
    """Start the command in a copy of this process, which has imported all that it needs."""
    process = multiprocessing.get_context("fork").Process(target=score, args=arguments)
    process.start()
    return process


def score(*arguments):
    torch.set_num_threads(1)  # a copy has none of the threads
    run.main([str(argument) for argument in arguments])


def end(process):
    """Return a process's exit code when it has ended."""
    process.join(120)
    return process.exitcode


def check_equal(whole, output):
    files = {str(path.relative_to(output)) for path in output.rglob("*.jsonl")}
    assert files == LINES
    for name in files:
        assert (output / name).read_bytes() == (whole / name).read_bytes()
    first, second = (
        json.loads((folder / "results.json").read_text()) for folder in (whole, output)
    )
    for results in (first, second):
        del results["created"]
    assert first == second
