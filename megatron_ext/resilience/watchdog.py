"""Ends a run in which a process hangs, and names that process.

A thread of each process writes the current phase to RUN/heartbeats/rank_00000.json. When a process
has been in one phase for longer than the limit, its thread asks all processes for their stacks and
last collectives (`hang_report`) and reads all heartbeats: the run waits for the processes whose
heartbeat has stopped, that have not called a collective, or that are behind.
"""

import contextlib
import faulthandler
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
from megatron_ext.resilience import hang_report

FOLDER = "heartbeats"
_START_TIME_TOLERANCE = 60.0
"""Seconds by which the system may report a process's start too late.

It counts from its own start, which moves when clocks are set.
"""
_REQUEST = "hang.json"
"""Names the folder of `hang_report`; written by the process that finds a hang."""
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
        self._entered = time.monotonic()
        self._dumped: Path | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        if "TORCH_FR_DUMP_TEMP_FILE" in os.environ:  # NCCL's own dump, should this thread fail
            (folder / hang_report.FOLDER).mkdir(exist_ok=True)
        self._write_heartbeat()
        self._stacks = (self.folder / f"rank_{rank:05d}.stacks.txt").open("w", encoding="utf-8")
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def enter(self, step: int, phase: str) -> None:
        """Report that this process begins `phase` of `step`."""
        self._state = (step, phase, time.time())
        self._entered = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self.enter(self._state[0], "end")
        self._stop.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._stacks.close()
        _remove_if_empty(Path(self._stacks.name))
        self._write_heartbeat()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            # a thread of C, which needs no lock of Python: it fires where the main thread holds it
            faulthandler.dump_traceback_later(max(1.0, self.limit / 2), file=self._stacks)
            # a file system that fails for a moment must not end the watch
            with contextlib.suppress(OSError):
                self._write_heartbeat()
                if self._dumped is None and (self.folder / _REQUEST).exists():
                    self._dump()
            if self._is_over_limit():
                self.on_hang(self._message())
                return

    def _message(self) -> str:
        """Return the diagnosis, which a file system that fails must not prevent."""
        try:
            return self._report()
        except Exception as error:
            step, phase, _ = self._state
            return (
                f"rank {self.rank} has been in {phase!r} of step {step + 1} for more than"
                f" {self.limit:.0f} s; the others' state is unknown: {error}"
            )

    def _is_over_limit(self) -> bool:
        """Return whether the phase has taken too long, also where the system's clock was set."""
        return time.monotonic() - self._entered > self.limit

    def _report(self) -> str:
        """Have the evidence of all processes written, and return the diagnosis."""
        is_first = self._request()
        self._dump()
        # The first to find the hang reports it; the others do so where it has ended without effect.
        deadline = time.time() + (2 if is_first else 5) * self._interval + 1
        while time.time() < deadline and not (is_first and self._all_dumped()):
            if self._stop.wait(min(0.5, self._interval)):
                break
        self._write_heartbeat()
        return diagnose(
            heartbeats(self.folder.parent), self.rank, self.limit, self._collect_evidence()
        )

    def _request(self) -> bool:
        """Ask all processes for evidence; return whether this one is the first to ask."""
        name = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
        try:
            with (self.folder / _REQUEST).open("x", encoding="utf-8") as file:
                file.write(json.dumps({"folder": name, "rank": self.rank}) + "\n")
        except FileExistsError:
            return False
        except OSError as error:
            logger.warning(f"the evidence of other ranks cannot be requested: {error}")
        return True

    def _dump(self) -> None:
        if self._dumped is not None:
            return
        try:
            name = json_file.read_object(self.folder / _REQUEST)["folder"]
        except (DataError, KeyError):  # not yet written
            return
        self._dumped = self.folder.parent / hang_report.FOLDER / str(name)
        hang_report.dump(self._dumped, self.rank)

    def _all_dumped(self) -> bool:
        """Return whether each process has written its last file."""
        if self._dumped is None:
            return True
        return len(list(self._dumped.glob("flight_recorder_rank_*"))) >= self.world_size

    def _collect_evidence(self) -> Path | None:
        """Add the stacks of processes whose watchdog cannot run; return the folder."""
        if self._dumped is not None:
            for path in self.folder.glob("*.stacks.txt"):
                target = self._dumped / path.name
                with contextlib.suppress(OSError):
                    if path.stat().st_size and not target.exists():
                        shutil.copyfile(path, target)
        return self._dumped

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


def diagnose(
    heartbeats: list[dict[str, Any]], rank: int, limit: float, evidence: Path | None = None
) -> str:
    """Return which processes the run waits for.

    Args:
        heartbeats: of each process, `{rank, host, pid, step, phase, since, seen}`.
        rank: the process that found the hang.
        limit: seconds that a phase may take.
        evidence: folder of `hang_report`.
    """
    now = max(one["seen"] for one in heartbeats)
    own = next(one for one in heartbeats if one["rank"] == rank)
    text = (
        f"rank {rank} has been in {own['phase']!r} of step {own['step'] + 1} for"
        f" {now - own['since']:.0f} s (limit {limit:.0f} s)"
    )
    causes = [one for one in heartbeats if now - one["seen"] > limit / 2]
    silent = {one["rank"] for one in causes}
    waits = [] if evidence is None else hang_report.find_waits(hang_report.read(evidence), silent)
    if not causes:
        missing = hang_report.root_causes(waits)
        causes = [one for one in heartbeats if one["rank"] in missing] or _behind(heartbeats)
    if causes:
        text += "; the run waits for " + "; ".join(_describe(one, now) for one in causes[:8])
        text += " and others" if len(causes) > 8 else ""
    else:
        text += (
            "; all processes are in this phase and alive, so the communication between them"
            " hangs: check the network"
        )
    ranks = {one["rank"] for one in causes}
    relevant = [wait for wait in waits if ranks.intersection(wait.missing)] or waits
    text += "".join(f"; {wait}" for wait in relevant[:4])
    return text if evidence is None else f"{text}; stacks and last collectives: {evidence}"


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
            record = json_file.read_object(path)
        except DataError:  # just being replaced on a network file system
            continue
        if _is_heartbeat(record):
            records.append(record)
    return sorted(records, key=lambda heartbeat: heartbeat["rank"])


def _is_heartbeat(record: dict[str, Any]) -> bool:
    """Return whether a file is a heartbeat of this version, and undamaged."""
    counts = [record.get(name) for name in ("rank", "pid", "step")]
    times = [record.get(name) for name in ("since", "seen")]
    return (
        all(type(count) is int and 0 <= count < 2**31 for count in counts)
        and all(isinstance(time, int | float) and 0 <= time < 1e11 for time in times)
        and isinstance(record.get("host"), str)
        and record.get("phase") in _PHASES
    )


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


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()


def clear(run: Path) -> None:
    """Remove the heartbeats of an earlier start."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
