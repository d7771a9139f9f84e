"""Signals that ask a command to save and end: SIGTERM, SIGUSR2 (Slurm's, before its time limit) and Ctrl-C."""

import signal
import time
from types import FrameType
from typing import Any, Self

EXIT_CODE = 75
"""Not finished, saved, to be started again (EX_TEMPFAIL of sysexits.h)."""
NAMES = ("SIGTERM", "SIGUSR2", "SIGINT")
_TWICE = 1.0
"""Seconds between two Ctrl-C that are two: torchrun hands on the one that its processes have had already."""


class StopSignals:
    """Inside a `with` block the signals are only noted, in `received`; a second Ctrl-C ends the process as usual."""

    def __init__(self) -> None:
        self.received: str | None = None
        """The first signal that came, or None."""
        self._before: dict[int, Any] = {}
        self._when = 0.0

    def __enter__(self) -> Self:
        for name in NAMES:
            number = signal.Signals[name]
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self.received is not None and now - self._when > _TWICE:
            raise KeyboardInterrupt
        if self.received is None:
            self.received = signal.Signals(number).name
            self._when = now
