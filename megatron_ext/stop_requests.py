"""Reasons to stop a run early with a checkpoint: a signal, a time limit, a file that appears."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not finished, start again
STOPPED = "stopped.json"
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
_PROCESS_START = time.monotonic()
_SAME = 3.0
"""Seconds within which a second Ctrl-C is the first: a terminal sends it to each process, and a launcher passes it on."""


class StopRequests:
    """What this process was asked. The processes of a run agree on it by summing `flags`.

    Args:
        exit_duration_in_mins: minutes after the start of the process, or None.
        trigger_file: a file whose appearance asks to stop.
    """

    reasons = ("SIGTERM", "SIGUSR2", "SIGINT", "time limit", "trigger file")

    def __init__(self, exit_duration_in_mins: float | None, trigger_file: Path) -> None:
        self.limit = None if exit_duration_in_mins is None else _PROCESS_START + 60 * exit_duration_in_mins
        self.trigger_file = trigger_file
        self._signals: dict[str, float] = {}
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self._signals.setdefault(signal.Signals(number).name, time.monotonic())
        if number != signal.SIGINT:
            return
        if time.monotonic() - first > _SAME:
            raise KeyboardInterrupt
        if os.environ.get("RANK", "0") == "0":  # past Python's buffers: the signal may have come while it writes to them
            os.write(2, b"stopping with a checkpoint after what is being computed; a later Ctrl-C ends at once, without one\n")

    def flags(self, look_at_file: bool) -> list[float]:
        """Return 1.0 for each of `reasons` that holds here; one process looks at the file for all."""
        return [
            float("SIGTERM" in self._signals),
            float("SIGUSR2" in self._signals),
            float("SIGINT" in self._signals),
            float(self.limit is not None and time.monotonic() > self.limit),
            float(look_at_file and self.trigger_file.exists()),
        ]

    def reason(self, summed: list[float]) -> str | None:
        """Return the first reason that holds on any process, given the sum of their flags."""
        return next((reason for reason, flag in zip(self.reasons, summed, strict=True) if flag), None)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once inside the block, which waits outside Python: Python would hear of it only afterwards."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep the signals of stop requests waiting inside the block, and for ever from processes that are started in it.

    Slurm sends a signal to all processes of a task. One that the core starts to write checkpoints would die of it, and the
    checkpoint that the signal asks for could not be written.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
