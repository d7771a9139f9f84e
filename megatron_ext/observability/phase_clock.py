"""Records where the wall time of a run goes, in RUN/goodput.jsonl; `goodput` reads it.

Each line holds the seconds of each phase since the line before. The file is only appended to, so
it keeps the steps that a killed start did after its last checkpoint, which log.jsonl drops.
"""

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from galen import __version__
from megatron_ext.resilience import watchdog

FILE = "goodput.jsonl"
SILENCE_SECONDS = 90.0
"""A host is silent when its newest heartbeat is so much older than that of another host."""
_JOB_VARIABLES = {
    "id": "SLURM_JOB_ID",
    "restarts": "SLURM_RESTART_COUNT",
    "submitted": "GALEN_JOB_SUBMIT",
    "eligible": "GALEN_JOB_ELIGIBLE",
    "started": "GALEN_JOB_START",
}
_MAX_PROCESS_AGE = 3600.0
"""Seconds after which a process does not count as started for this run."""

logger = logging.getLogger(__name__)


class PhaseClock:
    """Divides the time of this process into phases: each moment belongs to exactly one.

    Args:
        began: start of the first phase, "imports", in seconds since the epoch.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self._step = 0
        self._phase = "imports"
        self._seconds = {"imports": max(0.0, time.time() - began)}
        self._since = time.monotonic()
        self._file: BinaryIO | None = None
        self._is_cut = False
        """Whether the file ends within a line, which a kill or a full disk left."""
        self._ended = False

    def enter(self, phase: str) -> str:
        """Begin a phase and return the one that ends."""
        now = time.monotonic()
        before = self._phase
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
        self._since = now
        self._phase = phase
        return before

    @contextlib.contextmanager
    def phase(self, name: str, line: str | None = None) -> Iterator[None]:
        """Count the time of a block as a phase, and then write a line of that kind, if any."""
        before = self.enter(name)
        try:
            yield
        finally:
            self.enter(before)
        if line is not None:
            self.write(line)

    def open(self, run: Path) -> None:
        """Record to the run folder from here on. Only rank 0 does."""
        path = run / FILE
        try:
            self._is_cut = _lacks_newline(path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            logger.warning(f"{path} cannot be written, so goodput will be unknown: {error}")

    def write(self, kind: str, step: int | None = None, **fields: Any) -> None:
        """Write a line with the seconds of each phase since the last one.

        Args:
            kind: of the line.
            step: steps done, if that has changed.
            fields: further fields, of JSON types.
        """
        if step is not None:
            self._step = step
        self.enter(self._phase)
        seconds = {phase: round(value, 6) for phase, value in self._seconds.items() if value}
        if self._file is not None:
            line = {"kind": kind, "time": round(time.time(), 3), "step": self._step, **fields}
            line["seconds"] = seconds
            if not self._append(json.dumps(line).encode()):
                return  # the next line has the seconds of this one, too
        self._seconds.clear()

    def _append(self, line: bytes) -> bool:
        """Return whether the file has the line; a full disk takes none or the first bytes of it."""
        assert self._file is not None
        content = b"\n" * self._is_cut + line + b"\n"
        try:
            written = self._file.write(content)
        except OSError:
            return False
        self._is_cut = written < len(content)
        return written >= len(content) - 1  # only its end may be missing

    def end(self, reason: str, detail: str = "") -> None:
        """Write the last line, unless there is one already.

        Args:
            reason: `finished`, `stopped` or `failed`.
            detail: reason of the stop, or the error.
        """
        if not self._ended:
            self._ended = True
            self.write("end", reason=reason, detail=detail)

    def close(
        self, _type: Any = None, error: BaseException | None = None, _trace: Any = None
    ) -> None:
        """Write the last line and close the file; takes what a context manager's exit takes."""
        if error is not None:
            self.end("failed", f"{type(error).__name__}: {error}"[:500])
        if self._file is not None:
            self._file.close()
            self._file = None

    def timed(self, items: Iterator[Any], phase: str) -> Iterator[Any]:
        """Yield the items of an iterator; the time to get each one belongs to a phase."""
        while True:
            before = self.enter(phase)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.enter(before)
            yield item


def process_start() -> float:
    """Return when this process was started for the run, in seconds since the epoch.

    It is now where the run is only a part of the process, such as a notebook.
    """
    now = time.time()
    if "RANK" not in os.environ:
        return now
    # create_time rests on a boot time in whole seconds, so the moment itself may be 1 s too early
    since_boot = psutil.Process().create_time() - psutil.boot_time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    return now - age if 0 <= age <= _MAX_PROCESS_AGE else now


def start_fields(clock: PhaseClock, run: Path, ranks: int) -> dict[str, Any]:
    """Return the fields of a start's first line.

    Args:
        clock: of this process.
        run: the run folder, with the heartbeats of the start before.
        ranks: number of processes.
    """
    return {
        "began": round(clock.began, 3),
        "galen": __version__,
        "host": socket.gethostname(),
        "ranks": ranks,
        "job": _job(),
        "previous": last_heartbeats(run),
    }


def record_exit(run: Path, exit_code: int) -> None:
    """Record the exit code of a start that has ended, as its batch script knows it."""
    path = run / FILE
    if not path.is_file():
        return
    line = {"kind": "exit", "time": round(time.time(), 3), "exit_code": exit_code, "job": _job()}
    try:
        prefix = "\n" if _lacks_newline(path) else ""
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{prefix}{json.dumps(line)}\n")
    except OSError as error:
        logger.warning(f"{path} cannot be written: {error}")


def last_heartbeats(run: Path) -> dict[str, Any]:
    """Return when the processes of a start were last alive; empty if that is unknown.

    Returns:
        last_seen: time of the newest heartbeat.
        phase_seconds: the longest time in one phase, by which the watchdog ends a run.
        silent_hosts: hosts whose heartbeats ended before those of the others.
    """
    newest: dict[str, float] = {}
    longest = 0.0
    for one in watchdog.heartbeats(run):
        newest[one["host"]] = max(one["seen"], newest.get(one["host"], one["seen"]))
        if one["phase"] != "end":
            longest = max(longest, one["seen"] - one["since"])
    if not newest:
        return {}
    last_seen = max(newest.values())
    silent = [host for host, seen in newest.items() if last_seen - seen > SILENCE_SECONDS]
    return {
        "last_seen": round(last_seen, 3),
        "phase_seconds": round(longest, 3),
        "silent_hosts": sorted(silent)[:8],
    }


def _job() -> dict[str, int]:
    """Return the batch job's id, restarts and times, as far as its script exports them."""
    found = {}
    for name, variable in _JOB_VARIABLES.items():
        value = os.environ.get(variable, "")
        if value.isascii() and value.isdigit() and len(value) <= 12:
            found[name] = int(value)
    return found


def _lacks_newline(path: Path) -> bool:
    """Return whether a file ends within a line."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
