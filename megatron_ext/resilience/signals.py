"""Reasons to stop a run early with a checkpoint: a signal, a time limit, a file that appears."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from galen.stop_signals import NAMES, StopSignals

STOPPED = "stopped.json"
_SIGNALS = tuple(signal.Signals[name] for name in NAMES)
_PROCESS_START = time.monotonic()


class StopRequests:
    """What this process was asked. The processes of a run agree on it by summing `flags`.

    Args:
        exit_duration_in_mins: minutes after the start of the process, or None.
        trigger_file: a file whose appearance asks to stop.
    """

    reasons = (*NAMES, "time limit", "trigger file")

    def __init__(self, exit_duration_in_mins: float | None, trigger_file: Path) -> None:
        self.limit = (
            None if exit_duration_in_mins is None else _PROCESS_START + 60 * exit_duration_in_mins
        )
        self.trigger_file = trigger_file
        self._signals = StopSignals().listen()

    def flags(self, look_at_file: bool) -> list[float]:
        """Return 1.0 for each of `reasons` that holds here; one process checks the file for all."""
        return [
            *(float(name == self._signals.received) for name in NAMES),
            float(self.limit is not None and time.monotonic() > self.limit),
            float(look_at_file and self.trigger_file.exists()),
        ]

    def reason(self, summed: list[float]) -> str | None:
        """Return the first reason that holds on any process, given the sum of their flags."""
        return next(
            (reason for reason, flag in zip(self.reasons, summed, strict=True) if flag), None
        )


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once inside a block that waits outside Python.

    Otherwise Python would handle it only afterwards.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Block the signals of stop requests inside the block.

    Processes that are started in it block them for good.

    Slurm sends a signal to all processes of a task. One that the core starts to write checkpoints
    would die of it, and the checkpoint that the signal asks for could not be written.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
