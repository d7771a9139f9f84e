"""Streams whose records or lines have a limit, so that none is held in memory beyond it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from galen.errors import DataError


class BoundedStream:
    """A stream for `lxml.etree.iterparse` that stops after `limit` bytes without a call of `mark`.

    A record that never ends would otherwise be held in memory.
    """

    def __init__(self, stream: BinaryIO, limit: int, path: str) -> None:
        self.stream = stream
        self.limit = limit
        self.path = path
        self.passed = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            DataError: the present record is too long.
        """
        data = self.stream.read1(size)  # type: ignore[attr-defined]
        self.passed += len(data)
        if self.passed > self.limit:
            raise DataError(
                f"{self.path}: a record is longer than {self.limit:,} bytes (max_record_bytes)"
            )
        return data

    def mark(self) -> None:
        """Begin a new record."""
        self.passed = 0


@dataclass(slots=True)
class Line:
    """One line of a file."""

    number: int
    offset: int
    data: bytes | None
    """None for a line that is longer than the limit."""
    length: int
    """Bytes, those of the line's end included."""

    @property
    def position(self) -> str:
        """Position in the file, in words."""
        return f"line {self.number}, byte {self.offset}"


def bounded_lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """Yield the lines of a stream, from number 1.

    For a line longer than `limit` bytes only its length, in constant memory.
    """
    number = 0
    offset = 0
    while data := stream.readline(limit + 1):
        number += 1
        length = len(data)
        too_long = length > limit and not data.endswith(b"\n")
        while too_long and not data.endswith(b"\n") and (data := stream.readline(2**20)):
            length += len(data)
        yield Line(number, offset, None if too_long else data, length)
        offset += length
