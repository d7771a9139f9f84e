import ctypes
import json
import queue
import time

import pytest

from megatron_ext.resilience.watchdog import FOLDER, Watchdog, diagnose

NOW = 1_000_000.0


def heartbeat(rank, step=4, phase="forward and backward", since=NOW - 100, seen=NOW, host="node1"):
    return {
        "rank": rank,
        "host": host,
        "pid": 100 + rank,
        "step": step,
        "phase": phase,
        "since": since,
        "seen": seen,
    }


@pytest.mark.parametrize(
    ("heartbeats", "message"),
    [
        (
            [
                heartbeat(0, phase="optimizer step"),
                heartbeat(1, seen=NOW - 90, host="node2"),
                heartbeat(2, phase="optimizer step"),
            ],
            (
                "rank 0 has been in 'optimizer step' of step 5 for 100 s (limit 60 s); the run"
                " waits for rank 1 on node2 (process 101), last in 'forward and backward' of step"
                " 5, no heartbeat for 90 s"
            ),
        ),
        (
            [heartbeat(0, phase="checkpoint"), heartbeat(1), heartbeat(2, phase="checkpoint")],
            "the run waits for rank 1 on node1 (process 101), last in 'forward",
        ),
        (
            [heartbeat(0, step=5), heartbeat(1, phase="checkpoint")],
            "the run waits for rank 1 on node1 (process 101), last in 'checkpoint' of step 5",
        ),
        (
            [heartbeat(0), heartbeat(1)],
            "all processes are in this phase and alive, so the communication between them hangs",
        ),
    ],
)
def test_the_hanging_process_is_named(heartbeats, message):
    assert message in diagnose(heartbeats, 0, 60)


def test_a_phase_that_takes_too_long_is_reported(tmp_path):
    messages = queue.Queue()
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "rank_00001.json").write_text(
        json.dumps(heartbeat(1, host="node2", seen=time.time() - 999, step=0))
    )
    watchdog = Watchdog(tmp_path, rank=0, world_size=2, limit=0.2, on_hang=messages.put)
    watchdog.enter(0, "optimizer step")
    assert "the run waits for rank 1 on node2" in messages.get(timeout=60)
    watchdog.close()


def test_progress_prevents_a_report(tmp_path):
    watchdog = Watchdog(
        tmp_path, rank=0, world_size=1, limit=1e6, on_hang=lambda _: pytest.fail("not hung")
    )
    watchdog.enter(7, "validation")
    watchdog.close()
    written = json.loads((tmp_path / FOLDER / "rank_00000.json").read_text())
    assert (written["step"], written["phase"]) == (7, "end")


def test_a_process_that_holds_the_lock_of_python_writes_its_stacks(tmp_path):
    watchdog = Watchdog(tmp_path, rank=0, world_size=1, limit=1.5, on_hang=lambda _: None)
    stacks = tmp_path / FOLDER / "rank_00000.stacks.txt"
    time.sleep(0.5)  # the thread has set its timer
    assert not stacks.read_text()
    ctypes.PyDLL(None).usleep(1_300_000)  # keeps the lock
    assert "in test_a_process_that_holds_the_lock" in stacks.read_text()
    watchdog.close()


def test_the_file_of_stacks_is_removed_at_the_end(tmp_path):
    Watchdog(tmp_path, rank=0, world_size=1, limit=1e6, on_hang=pytest.fail).close()
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["rank_00000.json"]


def test_all_processes_write_their_state_when_one_finds_a_hang(tmp_path):
    messages = queue.Queue()
    watchdogs = [
        Watchdog(tmp_path, rank, world_size=2, limit=limit, on_hang=messages.put)
        for rank, limit in ((0, 0.3), (1, 4.0))
    ]
    message = messages.get(timeout=60)
    (evidence,) = (tmp_path / "hangs").iterdir()
    assert f"stacks and last collectives: {evidence}" in message
    names = sorted(path.name for path in evidence.glob("*.stacks.txt"))
    assert names == ["rank_00000.stacks.txt", "rank_00001.stacks.txt"]
    for watchdog in watchdogs:
        watchdog.close()


def test_a_clock_that_is_set_is_no_hang(tmp_path, monkeypatch):
    watchdog = Watchdog(tmp_path, rank=0, world_size=1, limit=600)
    watchdog.enter(7, "validation")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert not watchdog._is_over_limit()
    monkeypatch.undo()
    watchdog.close()
