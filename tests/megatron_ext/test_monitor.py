"""Watching a run: the state of its folder, as lines, on a terminal, as a page."""

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import time
from xml.etree import ElementTree

import pytest

from galen import lock
from galen.errors import DataError, OutputConflictError
from megatron_ext import monitor
from megatron_ext.observability import run_state
from megatron_ext.resilience import watchdog
from tests.conftest import ROOT, command, run
from tests.megatron_ext.conftest import RECIPE
from tests.megatron_ext.observability.test_accounting import Run


def record(step, **changed):
    figures = {
        "kind": "train",
        "step": step,
        "loss": 5 - step / 10,
        "lr": 1e-3,
        "grad_norm": 2.0,
        "tokens": 256 * step,
    }
    return figures | {
        "tokens_per_second": 1000.0,
        "mfu": None,
        "skipped_steps": 0,
        "elapsed": 0.5 * step,
        **changed,
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        RECIPE.format(output=tmp_path, checkpoint="c", data="d").replace(
            "train_iters: 4", "train_iters: 40"
        )
    )
    records = [record(step) for step in range(1, 30)] + [record(30, skipped_steps=2, mfu=0.45)]
    records.insert(10, {"kind": "validation", "step": 10, "loss": 4.2, "tokens": 512})
    records.append({"kind": "skipped", "step": 29, "reason": "loss"})
    (tmp_path / "log.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in records) + '{"kind": "tra'
    )
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "iter_0000020").mkdir(parents=True)
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("20\n")
    return tmp_path


def test_state_of_a_run_folder(folder):
    state = run_state.read(folder)
    assert (state.step, state.total, state.skipped, state.checkpoint, state.mfu) == (
        30,
        40,
        2,
        20,
        0.45,
    )
    assert state.smoothed_loss == pytest.approx(5 - 20.5 / 10)  # the mean of steps 11 to 30
    assert state.seconds_left == pytest.approx(5.0)  # ten steps of half a second
    assert (state.status, state.ended) == ("running", False)
    assert [event["kind"] for event in state.events] == ["skipped"]


def test_status(folder):
    os.utime(folder / "log.jsonl", (time.time() - 7200, time.time() - 7200))
    assert run_state.read(folder).status == "stalled: no heartbeat for 120 minutes"
    (folder / "stopped.json").write_text('{"reason": "SIGUSR2", "iteration": 30, "exit_code": 75}')
    assert (run_state.read(folder).status, run_state.read(folder).ended) == (
        "stopped early (SIGUSR2)",
        True,
    )
    (folder / "manifest.json").write_text("{}")
    assert run_state.read(folder).status == "finished"


def test_lines_follow_the_run_until_it_has_ended(folder):
    started = subprocess.Popen(
        command("-m", "megatron_ext.monitor", folder, "--every", "0.05"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    first = started.stdout.readline()
    assert first.startswith(
        "step 30/40 | status running | loss 2.9500 (last 2.0000) | grad norm 2.000"
    )
    assert (
        "MFU 45.0%" in first
        and "time left 00:05" in first
        and "skipped steps 2" in first
        and "last checkpoint step 20" in first
    )
    text = (folder / "log.jsonl").read_text()
    (folder / "log.jsonl").write_text(text[: text.rfind("\n") + 1] + json.dumps(record(40)) + "\n")
    (folder / "manifest.json").write_text("{}")
    rest = started.stdout.read().splitlines()
    assert rest[-1].startswith("step 40/40 | status finished")
    assert started.wait() == 0


def test_on_a_terminal(folder):
    own, theirs = pty.openpty()
    words = command("-m", "megatron_ext.monitor", folder, "--once")
    started = subprocess.Popen(words, cwd=ROOT, stdout=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while part := os.read(own, 4096):
            written += part
    assert started.wait() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())
    assert "step 30 of 40" in shown and "grad norm" in shown and "█" in shown


def test_the_page(folder, tmp_path):
    page = tmp_path / "loss.html"
    run("-m", "megatron_ext.monitor", folder, "--html", page)
    text = page.read_text()
    drawing = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    lines = [
        one
        for one in drawing.iter("{http://www.w3.org/2000/svg}g")
        if one.get("id", "").startswith("loss-line2d")
    ]
    assert len(lines) > 5  # ticks and curves
    assert "30 of 40" in text and "http://" not in re.sub(
        r'xmlns(:\w+)?="[^"]*"|<rdf:RDF.*?</rdf:RDF>', "", text, flags=re.S
    )


def test_a_folder_that_holds_no_run(tmp_path):
    done = run("-m", "megatron_ext.monitor", tmp_path, check=False)
    assert done.returncode == 1 and "recipe.yaml is missing" in done.stderr
    # of a fine-tuning
    (tmp_path / "recipe.yaml").write_text("model: {path: a}\nlora: {r: 4}\noutput: b\n")
    with pytest.raises(OutputConflictError) as error:
        run_state.read(tmp_path)
    assert f"{tmp_path} is not the folder of a pretraining run of this version of Galen (" in str(
        error.value
    )
    assert "\n" not in str(error.value)


def test_curve():
    assert monitor.curve([1.0, 2.0, 3.0, float("nan")], 60) == "▁▅█▁"


def heartbeat(folder, rank, **changed):
    (folder / "heartbeats").mkdir(exist_ok=True)
    now = time.time()
    written = {
        "rank": rank,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "step": 30,
        "phase": "forward and backward",
    }
    written |= {"since": now - 1, "seen": now, **changed}
    (folder / f"heartbeats/rank_{rank:05d}.json").write_text(json.dumps(written))


@pytest.mark.parametrize("damage", [{"mfu": "high"}, {"step": 10**400}, {"loss": None}])
def test_damaged_records_of_the_log_are_named(folder, damage):
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(record(31) | damage) + "\n")
    with pytest.raises(DataError, match=r"log\.jsonl, line \d+: not a record"):
        run_state.read(folder)


@pytest.mark.parametrize(
    "damage",
    [{"host": 1}, {"host": None}, {"pid": -1}, {"step": True}, {"phase": "train"}, {"seen": 1e300}],
)
def test_damaged_heartbeats_are_skipped(folder, damage):
    heartbeat(folder, 0)
    heartbeat(folder, 1, **damage)
    assert [one["rank"] for one in watchdog.heartbeats(folder)] == [0]
    assert run_state.read(folder).status == "running"


@pytest.fixture
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_killed_run_has_failed_at_once(folder, ended):
    for rank in range(2):
        heartbeat(folder, rank)
    assert run_state.read(folder).status == "running"
    heartbeat(folder, 1, pid=ended)
    state = run_state.read(folder)
    assert (state.status, state.ended) == (
        "stalled: the other ranks wait for dead processes (rank 1)",
        False,
    )
    heartbeat(folder, 0, seen=time.time() - 1e6)  # its number belongs to a younger process now
    state = run_state.read(folder)
    assert state.ended and state.status.startswith("failed: none of its processes is alive")
    done = run("-m", "megatron_ext.monitor", folder)  # follows it no further
    assert "status failed" in done.stdout


def test_a_run_that_was_killed_before_its_first_step(folder, ended):
    (folder / "log.jsonl").unlink()
    assert run_state.read(folder).status == "starting"
    lock.lock_file(folder).write_text(
        json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    )
    assert run_state.read(folder).status == "starting"
    lock.lock_file(folder).write_text(json.dumps({"pid": ended, "host": socket.gethostname()}))
    assert run_state.read(folder).ended


def test_processes_on_other_machines(folder, ended):
    heartbeat(folder, 0, host="elsewhere", pid=ended)
    assert run_state.read(folder).status == "running"
    for path in (
        folder / "log.jsonl",
        folder / "recipe.yaml",
        folder / "heartbeats/rank_00000.json",
    ):
        os.utime(path, (time.time() - 660, time.time() - 660))
    state = run_state.read(folder)
    assert (state.status, state.ended) == ("stalled: no heartbeat for 11 minutes", True)


def test_a_stalled_run(folder):
    now = time.time()
    for rank in range(2):
        heartbeat(folder, rank, since=now - 240, seen=now)
    state = run_state.read(folder)
    assert (state.status, state.ended) == (
        "stalled: all processes have been in 'forward and backward' for 4 minutes",
        False,
    )


def test_goodput(folder, tmp_path):
    html, figures = tmp_path / "goodput.html", tmp_path / "goodput.json"
    options = ("--goodput-html", html, "--goodput-json", figures)
    printed = run("-m", "megatron_ext.monitor", folder, *options).stdout
    assert printed.count("goodput unknown") == 2 and "Goodput: unknown" in html.read_text()
    assert json.loads(figures.read_text())["goodput"] is None
    assert "goodput unknown" in monitor.line(run_state.read(folder))

    simulated = Run(folder)
    simulated.start(0)
    simulated.steps(20)
    simulated.save()
    simulated.steps(30)
    simulated.write("end", reason="failed", detail="DataError: <b>rank 3</b>")
    simulated.wait(60)
    simulated.start(20)
    simulated.steps(30)
    with (folder / "log.jsonl").open("a") as file:
        phases = {"gather": 0.5, "wait": 1.5}
        save = {"kind": "checkpoint", "step": 20, "checkpoint_stall": 2.0, "phases": phases}
        file.write("\n" + json.dumps(save) + "\n")
    text = (folder / "log.jsonl").read_text().replace('{"kind": "tra\n', "")
    (folder / "log.jsonl").write_text(text)
    assert monitor.main([str(folder), *map(str, options)]) == 0
    found = json.loads(figures.read_text())
    assert sum(found["parts"].values()) == pytest.approx(found["wall_seconds"])
    assert found["goodput"] == pytest.approx(22.5 / (60 + 40 + 2 + 60))
    assert (found["lost_steps"], found["stall_phases"]) == (10, phases)
    assert found["save_interval"]["failures"] == 1
    shown = html.read_text()
    assert "&lt;b&gt;rank 3&lt;/b&gt;" in shown and "<b>rank" not in shown
    assert "at least" in shown and "20 to 30" in shown and shown.count("<svg") == 1
    assert "goodput 13.9% (start-up 37.0%, idle 37.0%" in monitor.line(run_state.read(folder))
