"""Ends a run in which some process hangs, and says which.

Each process notes what it does in RUN/heartbeats/rank_00000.json, from a thread of its own. When a
process has been in one phase for longer than the limit, its thread reads the notes of all: whoever
is behind the others, or gives no sign of life, is what they wait for.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from galen.atomic import write_text

FOLDER = "heartbeats"
_ROUNDED = 60.0
"""Seconds by which the system may report a process's start too late.

It counts from its own start, which moves when clocks are set.
"""
_PHASES = ("start", "forward and backward", "optimizer step", "validation", "checkpoint", "end")


def _end_process(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread is inside a collective that nothing can interrupt


class Watchdog:
    """Watches this process; `enter` tells it how far the process is.

    Args:
        folder: run folder.
        rank, ranks: place of this process and number of all.
        limit: seconds that a phase may take.
        on_hang: what is done with the diagnosis; by default it is printed and the process ends with
            exit code 1.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        ranks: int,
        limit: float,
        on_hang: Callable[[str], None] = _end_process,
    ) -> None:
        self.folder, self.rank, self.ranks, self.limit, self.on_hang = (
            folder / FOLDER,
            rank,
            ranks,
            limit,
            on_hang,
        )
        self._every = max(0.05, min(30.0, limit / 10))
        self._stop = threading.Event()
        self._state = (0, "start", time.time())
        self.folder.mkdir(parents=True, exist_ok=True)
        self._note()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def enter(self, step: int, phase: str) -> None:
        """Say that this process now begins `phase` of `step`."""
        self._state = (step, phase, time.time())

    def close(self) -> None:
        """Stop watching."""
        self.enter(self._state[0], "end")
        self._stop.set()
        self._thread.join()
        self._note()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            # a file system that fails for a moment must not end the watch
            with contextlib.suppress(OSError):
                self._note()
            since = self._state[2]
            if time.time() - since > self.limit:
                self._stop.wait(2 * self._every)  # the others' last notes arrive
                self.on_hang(diagnose(notes(self.folder.parent), self.rank, self.limit))
                return

    def _note(self) -> None:
        step, phase, since = self._state
        note = {
            "rank": self.rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "step": step,
            "phase": phase,
        }
        write_text(
            self.folder / f"rank_{self.rank:05d}.json",
            json.dumps(note | {"since": since, "seen": time.time()}) + "\n",
        )


def diagnose(notes: list[dict[str, Any]], rank: int, limit: float) -> str:
    """Return who waits for whom.

    Args:
        notes: the last note of each process, `{rank, host, pid, step, phase, since, seen}`; a
            process without one is missing.
        rank: the process that found the hang.
        limit: seconds that a phase may take.
    """
    now = max(note["seen"] for note in notes)
    silent = [note for note in notes if now - note["seen"] > limit / 2]
    place = {note["rank"]: (note["step"], _PHASES.index(note["phase"])) for note in notes}
    last = min(place.values())
    # in the same phase as all others a process that still answers cannot be told from those that
    # wait for it
    behind = (
        [note for note in notes if place[note["rank"]] == last]
        if last < max(place.values())
        else []
    )
    causes = silent or behind
    own = next(note for note in notes if note["rank"] == rank)
    text = (
        f"rank {rank} has been in {own['phase']!r} of step {own['step'] + 1} for"
        f" {now - own['since']:.0f} s (limit {limit:.0f} s)"
    )
    if not causes:
        return (
            f"{text}; all processes are in it and answer, so the communication between them hangs:"
            " check the network"
        )
    return (
        f"{text}; it waits for "
        + "; ".join(_describe(note, now) for note in causes[:8])
        + (" and others" if len(causes) > 8 else "")
    )


def _describe(note: dict[str, Any], now: float) -> str:
    silence = now - note["seen"]
    last = (
        f"rank {note['rank']} on {note['host']} (process {note['pid']}), last in {note['phase']!r}"
        f" of step {note['step'] + 1}"
    )
    return f"{last}, no sign of life for {silence:.0f} s" if silence > 20 else last


def notes(run: Path) -> list[dict[str, Any]]:
    """Return the last note of each process of a run, by rank; a process without one is missing."""
    found = []
    for path in (run / FOLDER).glob("rank_*.json"):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # just being replaced on a network file system
            continue
    return sorted(found, key=lambda note: note["rank"])


def is_gone(process: dict[str, Any]) -> bool:
    """Return whether a process that noted `{host, pid}` has ended.

    It may have noted when it was last `seen`, too. False where the answer cannot be known.
    """
    if process["host"] != socket.gethostname():
        return False
    try:
        found = psutil.Process(process["pid"])
        return (
            found.status() == psutil.STATUS_ZOMBIE
            or found.create_time() > process.get("seen", time.time()) + _ROUNDED
        )
    except psutil.NoSuchProcess:
        return True


def forget(run: Path) -> None:
    """Remove the notes of an earlier start."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
