"""Preemption: stop a run early, with a checkpoint, on a signal, a time limit or a trigger file."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from galen.stop_signals import NAMES, StopSignals

STOPPED = "stopped.json"
TRIGGER_FILE = "trigger file"
_SIGNALS = tuple(signal.Signals[name] for name in NAMES)
_PROCESS_START = time.monotonic()


class PreemptionHandler:
    """Requests to stop that this process received.

    The processes of a run agree on them by summing `stop_flags`.

    Args:
        exit_duration_in_mins: minutes after the start of the process, or None.
        trigger_file: the run stops when this file appears.
    """

    reasons = (*NAMES, "time limit", TRIGGER_FILE)

    def __init__(self, exit_duration_in_mins: float | None, trigger_file: Path) -> None:
        self.deadline: float | None = None
        if exit_duration_in_mins is not None:
            self.deadline = _PROCESS_START + 60 * exit_duration_in_mins
        self.trigger_file = trigger_file
        self._signals = StopSignals().listen()

    def stop_flags(self, check_trigger_file: bool) -> list[float]:
        """Return 1.0 for each of `reasons` that holds here, else 0.0.

        Args:
            check_trigger_file: true on one process, which checks the file for all.
        """
        flags = [float(name == self._signals.received) for name in NAMES]
        flags.append(float(self.deadline is not None and time.monotonic() > self.deadline))
        flags.append(float(check_trigger_file and self.trigger_file.exists()))
        return flags

    def reason(self, stop_flags: list[float]) -> str | None:
        """Return the first reason that holds on any process, given the sum of their flags."""
        for reason, flag in zip(self.reasons, stop_flags, strict=True):
            if flag:
                return reason
        return None


@contextlib.contextmanager
def allow_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process at once inside a block that waits outside Python.

    Python itself handles the signal only after the block.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Block the signals that stop a run, inside the block; processes started in it inherit that.

    Slurm sends a signal to all processes of a task. It would kill those that the core starts to
    write checkpoints, and the checkpoint that the signal asks for could not be written.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
