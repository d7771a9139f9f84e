"""Signals that ask a command to save and stop: SIGTERM, SIGUSR2 (Slurm's) and Ctrl-C."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

EXIT_STOPPED = 75
"""Stopped early with a checkpoint, to be resumed (EX_TEMPFAIL of sysexits.h)."""
NAMES = ("SIGTERM", "SIGUSR2", "SIGINT")
NUMBERS = tuple(signal.Signals[name] for name in NAMES)
_TWICE = 3.0
"""Seconds after which another Ctrl-C counts as a second one.

A terminal sends one to each process, and a launcher passes it on.
"""
_SAVING = (
    b"stopping after the current step; another Ctrl-C, after three seconds, stops immediately\n"
)


class StopSignals:
    """Inside a `with` block the signals are only recorded, in `received`.

    A second Ctrl-C ends the process as usual.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """The first signal that came, or None."""
        self._before: dict[int, Any] = {}
        self._when = 0.0

    def __enter__(self) -> Self:
        return self.listen()

    def listen(self) -> Self:
        """Start to record signals, without a block until the end of the process.

        Only the main thread can; in another one, signals keep their effect.
        """
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
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
            if number == signal.SIGINT:
                self._announce()

    def _announce(self) -> None:
        """Answer the user at once; of several processes the first does."""
        if os.environ.get("RANK", "0") == "0":
            # past Python's buffers: the signal may have come while it writes to them
            os.write(2, _SAVING)
