"""Ends a run in which a process hangs, and names that process.

A thread of each process writes the current phase to RUN/heartbeats/rank_00000.json. When a process
has been in one phase for longer than the limit, its thread reads all heartbeats: the run waits for
the processes that are behind the others or whose heartbeat has stopped.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError

FOLDER = "heartbeats"
_START_TIME_TOLERANCE = 60.0
"""Seconds by which the system may report a process's start too late.

It counts from its own start, which moves when clocks are set.
"""
_PHASES = ("start", "forward and backward", "optimizer step", "validation", "checkpoint", "end")


logger = logging.getLogger(__name__)


def _end_process(message: str) -> None:
    logger.error(message)
    os._exit(1)  # the main thread is inside a collective that nothing can interrupt


class Watchdog:
    """Watches this process, which reports its progress by `enter`.

    Args:
        folder: run folder.
        rank: of this process.
        world_size: number of processes.
        limit: seconds that a phase may take.
        on_hang: called with the diagnosis; by default it is logged and the process ends with exit
            code 1.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world_size: int,
        limit: float,
        on_hang: Callable[[str], None] = _end_process,
    ) -> None:
        self.folder = folder / FOLDER
        self.rank = rank
        self.world_size = world_size
        self.limit = limit
        self.on_hang = on_hang
        self._interval = max(0.05, min(30.0, limit / 10))
        self._stop = threading.Event()
        self._state = (0, "start", time.time())
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_heartbeat()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def enter(self, step: int, phase: str) -> None:
        """Report that this process begins `phase` of `step`."""
        self._state = (step, phase, time.time())

    def close(self) -> None:
        """Stop watching."""
        self.enter(self._state[0], "end")
        self._stop.set()
        self._thread.join()
        self._write_heartbeat()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            # a file system that fails for a moment must not end the watch
            with contextlib.suppress(OSError):
                self._write_heartbeat()
            since = self._state[2]
            if time.time() - since > self.limit:
                self._stop.wait(2 * self._interval)  # the others' last heartbeats arrive
                self.on_hang(diagnose(heartbeats(self.folder.parent), self.rank, self.limit))
                return

    def _write_heartbeat(self) -> None:
        step, phase, since = self._state
        heartbeat = {
            "rank": self.rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "step": step,
            "phase": phase,
        }
        write_text(
            self.folder / f"rank_{self.rank:05d}.json",
            json.dumps(heartbeat | {"since": since, "seen": time.time()}) + "\n",
        )


def diagnose(heartbeats: list[dict[str, Any]], rank: int, limit: float) -> str:
    """Return which processes the run waits for.

    Args:
        heartbeats: of each process, `{rank, host, pid, step, phase, since, seen}`.
        rank: the process that found the hang.
        limit: seconds that a phase may take.
    """
    now = max(one["seen"] for one in heartbeats)
    own = next(one for one in heartbeats if one["rank"] == rank)
    text = (
        f"rank {rank} has been in {own['phase']!r} of step {own['step'] + 1} for"
        f" {now - own['since']:.0f} s (limit {limit:.0f} s)"
    )
    silent = [one for one in heartbeats if now - one["seen"] > limit / 2]
    causes = silent or _behind(heartbeats)
    if not causes:
        return (
            f"{text}; all processes are in this phase and alive, so the communication between them"
            " hangs: check the network"
        )
    text += "; it waits for " + "; ".join(_describe(one, now) for one in causes[:8])
    return text + " and others" if len(causes) > 8 else text


def _behind(heartbeats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the processes in the earliest phase, none where all are in the same.

    There the process that hangs cannot be distinguished from those that wait for it.
    """
    progress = [(one["step"], _PHASES.index(one["phase"])) for one in heartbeats]
    if min(progress) == max(progress):
        return []
    pairs = zip(heartbeats, progress, strict=True)
    return [one for one, reached in pairs if reached == min(progress)]


def _describe(heartbeat: dict[str, Any], now: float) -> str:
    text = (
        f"rank {heartbeat['rank']} on {heartbeat['host']} (process {heartbeat['pid']}), last in"
        f" {heartbeat['phase']!r} of step {heartbeat['step'] + 1}"
    )
    silence = now - heartbeat["seen"]
    return f"{text}, no heartbeat for {silence:.0f} s" if silence > 20 else text


def heartbeats(run: Path) -> list[dict[str, Any]]:
    """Return the last heartbeat of each process of a run, by rank, of those that have one."""
    records = []
    for path in (run / FOLDER).glob("rank_*.json"):
        try:
            records.append(json_file.read_object(path))
        except DataError:  # just being replaced on a network file system
            continue
    return sorted(records, key=lambda heartbeat: heartbeat["rank"])


def is_dead(process: dict[str, Any]) -> bool:
    """Return whether the process `{host, pid}`, alive at `seen` if given, has ended.

    False where the answer cannot be known.
    """
    if process["host"] != socket.gethostname():
        return False
    try:
        existing = psutil.Process(process["pid"])
        return (
            existing.status() == psutil.STATUS_ZOMBIE
            or existing.create_time() > process.get("seen", time.time()) + _START_TIME_TOLERANCE
        )
    except psutil.NoSuchProcess:
        return True


def clear(run: Path) -> None:
    """Remove the heartbeats of an earlier start."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
