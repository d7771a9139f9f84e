"""Bounds on the operations, bytes and time that a pickle takes."""

import time
from dataclasses import dataclass
from pathlib import Path

from galen.errors import DataError

_CHECK_EVERY = 4096
_BYTES_PER_BYTE = 256
_EXTRA_BYTES = 2**27
_BYTES_PER_OPERATION = 256
"""Bytes that are copied or read in the time of an operation."""


@dataclass(frozen=True)
class Limits:
    """Bounds for one file."""

    operations: int = 4_000_000
    bytes: int = 2**30
    """Estimated bytes of the values.

    At most `_BYTES_PER_BYTE` for each byte of the pickle, beside `_EXTRA_BYTES`.
    """
    seconds: float = 10.0
    """Processor time, beside a second for each million bytes of the pickle."""


class Budget:
    """The operations, bytes and time that a pickle, with those inside it, has used.

    Args:
        source: names the file in messages.
        limits: of the file.
        size: bytes of the pickle.
    """

    def __init__(self, source: str | Path, limits: Limits, size: int) -> None:
        self.source = source
        self.limits = limits
        self.max_bytes = min(limits.bytes, _EXTRA_BYTES + _BYTES_PER_BYTE * size)
        self.deadline = time.thread_time() + limits.seconds + size / 1e6
        self.operations = 0
        self.bytes = 0
        self.next_check = _CHECK_EVERY

    def check(self) -> None:
        """Refuse a pickle that takes too much.

        Raises:
            DataError: it does.
        """
        self.next_check = self.operations + _CHECK_EVERY
        if (
            self.operations > self.limits.operations
            or self.bytes > self.max_bytes
            or time.thread_time() > self.deadline
        ):
            raise damaged(
                self.source,
                f"it takes more than a checkpoint's does: {self.operations:,} operations, about"
                f" {self.bytes / 2**20:,.0f} MiB",
            )

    def charge(self, count: int) -> None:
        """Count bytes that a value takes, or that are read."""
        self.bytes += count
        self.operations += count // _BYTES_PER_OPERATION
        if self.bytes > self.max_bytes or self.operations >= self.next_check:
            self.check()


def damaged(source: str | Path, reason: str) -> DataError:
    """Return the error for a pickle that no checkpoint has."""
    return DataError(f"{source} is damaged, or not a checkpoint's: {reason}")
