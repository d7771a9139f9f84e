"""Signals that ask a command to save and end.

They are SIGTERM, SIGUSR2 (Slurm's, before its time limit) and Ctrl-C.
"""

import os
import signal
import time
from types import FrameType
from typing import Any, Self

EXIT_STOPPED = 75
"""Not finished, saved, to be started again (EX_TEMPFAIL of sysexits.h)."""
NAMES = ("SIGTERM", "SIGUSR2", "SIGINT")
_TWICE = 3.0
"""Seconds after which another Ctrl-C counts as a second one.

A terminal sends one to each process, and a launcher passes it on.
"""
_SAVING = (
    b"saving and ending as soon as the running work allows; another Ctrl-C, in three seconds or"
    b" later, ends at once\n"
)


class StopSignals:
    """Inside a `with` block the signals are only noted, in `received`.

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
        """Begin to note signals, without a block to the end of the process."""
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
            if number == signal.SIGINT:
                self._announce()

    def _announce(self) -> None:
        """Answer the user at once; of several processes the first does."""
        if os.environ.get("RANK", "0") == "0":
            # past Python's buffers: the signal may have come while it writes to them
            os.write(2, _SAVING)
