"""Input of the tokenizer in blocks of a few megabytes.

JSONL (plain, gzip, zstd, bzip2, xz), Parquet, Arrow, or standard input.

A block of a plain file is only a range of bytes: the process that works on it reads it. All else is
decompressed here, in order.
"""

import bisect
import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_prep.files.decompress import (
    CHUNK_BYTES,
    SUFFIXES,
    CorruptDataError,
    decompress,
    format_of,
)
from data_prep.files.tables import read_table
from galen.errors import DataError, UsageError

TABLES = (".parquet", ".arrow")
LONGEST_LINE = 64 << 20
"""Maximum length of a record's line in bytes, its end included.

Of a longer line only its length is kept.
"""
ENDINGS = (
    *(f"{kind}{suffix}" for kind in (".jsonl", ".ndjson", ".json") for suffix in ("", *SUFFIXES)),
    *TABLES,
)
STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class FileRange:
    """An input file, or a range of lines of a plain one."""

    path: Path
    start: int = 0
    """Byte where its first line begins."""

    end: int | None = None
    """Byte after its last line; None: to the end of the file."""

    @property
    def size(self) -> int:
        """Bytes on the disk; 0 for standard input."""
        if self.path == STDIN:
            return 0
        end = self.path.stat().st_size if self.end is None else self.end
        return end - self.start


@dataclass(slots=True)
class Block:
    """Some complete lines or rows that follow each other."""

    range_index: int
    """Index of its file range."""

    start: int
    """Where it begins: a byte of the decompressed file, or a row of a table."""

    end: int
    """Where the next one begins."""

    position: int
    """Bytes on the disk of the file range read up to its end."""

    data: Any = None
    """The block's lines as bytes, its rows as an Arrow record batch, or None.

    None represents the bytes start to end of a plain file, `LongLine` for a line that is too long.
    """


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that is too long to be a record."""

    length: int
    """Bytes, those of the line's end included."""


def is_plain(path: Path) -> bool:
    """Say whether a file is plain JSONL, which can be read from any line on."""
    return path != STDIN and path.suffix.lower() not in (*SUFFIXES, *TABLES)


def shard_inputs(files: Sequence[Path], shards: int) -> list[list[FileRange]]:
    """Return the file ranges of each shard: neighbors in the input, about equal in bytes.

    Only plain files are split, at ends of lines. If all are compressed files or tables, each shard
    gets at least one if there are enough.

    Raises:
        UsageError: some shard would be empty.
    """
    if shards == 1:
        return [[FileRange(path) for path in files]]
    if STDIN in files:
        raise UsageError("--shards: standard input cannot be sharded; give files")
    sizes = [path.stat().st_size for path in files]
    bounds = [sum(sizes) * shard // shards for shard in range(shards + 1)]
    result: list[list[FileRange]] = [[] for _ in range(shards)]
    splittable = any(map(is_plain, files))
    before = 0
    last = -1
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if is_plain(path):
            for shard, file_range in _split_file(path, size, before, bounds):
                result[shard].append(file_range)
        else:
            middle = bisect.bisect_right(bounds, before + size // 2, hi=shards) - 1
            if splittable:
                last = middle
            else:  # no shard may stay empty, and each one after this needs a file
                last = min(max(middle, shards - len(files) + number), last + 1)
            result[last].append(FileRange(path))
        before += size
    filled = sum(map(bool, result))
    if filled < shards:
        raise UsageError(
            f"--shards {shards}: the input fills only {filled} of them ({_why_few(files)}); ask for"
            " fewer, or decompress the files"
        )
    return result


def _split_file(
    path: Path, size: int, before: int, bounds: Sequence[int]
) -> Iterator[tuple[int, FileRange]]:
    """Yield the ranges of a plain file with their shards.

    Args:
        path: the file.
        size: its bytes.
        before: bytes of the files before it.
        bounds: byte of the entire input where each shard begins, and the end of the last.
    """
    for shard, (first, stop) in enumerate(itertools.pairwise(bounds)):
        low = max(first - before, 0)
        high = min(stop - before, size)
        start = line_start(path, low, size)
        end = line_start(path, high, size)
        if low < high and start < end:
            yield shard, FileRange(path, start, end)


def _why_few(files: Sequence[Path]) -> str:
    if unsplittable := sum(not is_plain(path) for path in files):
        return (
            f"{unsplittable} of the {len(files)} files are compressed or tables, which are not"
            " split"
        )
    return "the lines are too long for that"


def read_blocks(
    ranges: Sequence[FileRange],
    size: int,
    keys: Sequence[str],
    first_range: int = 0,
    start_offset: int = 0,
    on_bytes_read: Callable[[bytes], None] | None = None,
) -> Iterator[Block]:
    """Yield the blocks of all file ranges in order.

    Args:
        ranges: the input.
        size: bytes of a block, about.
        keys: columns of tables to read.
        first_range: index of the range to begin with.
        start_offset: decompressed bytes (rows of a table) of that range to skip.
        on_bytes_read: called with every chunk of standard input.

    Raises:
        DataError: a file cannot be read or is damaged; the message names it.
    """
    for index in range(first_range, len(ranges)):
        file_range = ranges[index]
        path = file_range.path
        skip = start_offset if index == first_range else 0
        try:
            if path.suffix.lower() in TABLES:
                yield from _table_blocks(index, path, size, keys, skip)
            elif is_plain(path):
                yield from _plain_blocks(index, file_range, size, skip)
            else:
                yield from _StreamBlocks(index, path, size, skip).read(on_bytes_read)
        except CorruptDataError as error:
            name = format_of(path.name)
            raise DataError(f"{path} is not complete {name} data: {error}") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def read_range(path: Path, start: int, end: int) -> bytes:
    """Return bytes `start` to `end` of a file.

    Raises:
        DataError: it cannot be read or has become shorter.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            data = file.read(end - start)
            # the size of one read is limited
            while len(data) < end - start and (more := file.read(end - start - len(data))):
                data += more
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) < end - start:
        raise DataError(f"{path} became shorter while it was read")
    return data


def line_number(path: Path, offset: int) -> int:
    """Return the number, from 1, of the line at byte `offset` of a file's decompressed content."""
    count = 1
    left = offset
    with path.open("rb") as raw:
        for data in decompress(raw, path.name):
            count += data.count(b"\n", 0, left)
            left -= len(data)
            if left <= 0:
                break
    return count


def line_start(path: Path, offset: int, size: int) -> int:
    """Return the start of the first line at or after `offset` in a plain file of `size` bytes."""
    if offset <= 0 or offset >= size:
        return max(min(offset, size), 0)
    with path.open("rb") as file:
        file.seek(offset - 1)
        return offset - 1 + _skip_line(file)


def _plain_blocks(index: int, file_range: FileRange, size: int, skip: int) -> Iterator[Block]:
    with file_range.path.open("rb", buffering=1 << 14) as file:
        end = file.seek(0, io.SEEK_END) if file_range.end is None else file_range.end
        start = max(skip, file_range.start)
        while start < end:
            stop = min(start + size, end)
            if stop < end:
                file.seek(stop - 1)
                stop += _skip_line(file) - 1
            block = Block(index, start, stop, stop - file_range.start)
            if stop - start <= max(size, LONGEST_LINE):
                yield block
            else:
                yield from _around_long_line(file, block, size)
            start = stop


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of a line, in little memory; return the number of bytes."""
    length = 0
    while data := file.readline(CHUNK_BYTES):
        length += len(data)
        if data.endswith(b"\n"):
            break
    return length


def _around_long_line(file: BinaryIO, block: Block, size: int) -> Iterator[Block]:
    """Split a block of a plain file whose last line is far longer: the lines before, and that."""
    file.seek(block.start)
    head = file.read(size)
    line = block.start + head.rfind(b"\n") + 1
    length = block.end - line
    if line > block.start:
        yield Block(block.range_index, block.start, line, block.position - length)
    data = LongLine(length) if length > LONGEST_LINE else None
    yield Block(block.range_index, line, block.end, block.position, data)


class _StreamBlocks:
    """Splits a compressed file, or standard input, into blocks.

    Args:
        index: of the file range.
        path: the file, or `STDIN`.
        size: bytes of a block, about.
        skip: decompressed bytes to skip.
    """

    def __init__(self, index: int, path: Path, size: int, skip: int) -> None:
        self._index = index
        self._path = path
        self._size = size
        self._skip = skip
        self._start = skip
        """Where the next block begins."""
        self._buffer = b""
        """Read after it, without a complete block."""
        self._long_line = 0
        """Bytes read of a line that is too long to be kept."""

    def read(self, on_bytes_read: Callable[[bytes], None] | None) -> Iterator[Block]:
        """Yield the blocks; `on_bytes_read` is called with every chunk of standard input."""
        raw: BinaryIO = sys.stdin.buffer if self._path == STDIN else self._path.open("rb")
        with raw:
            for data in decompress(raw, self._path.name):
                if on_bytes_read is not None and self._path == STDIN:
                    on_bytes_read(data)
                yield from self._add(data, raw)
            if self._long_line:
                yield self._block(self._long_line, LongLine(self._long_line), raw)
            elif self._buffer:
                yield self._block(len(self._buffer), self._buffer, raw)

    def _add(self, data: bytes, raw: BinaryIO) -> Iterator[Block]:
        """Yield the blocks that are complete with the next chunk."""
        if self._skip:
            skipped = min(self._skip, len(data))
            data = data[skipped:]
            self._skip -= skipped
        if self._long_line:
            end = data.find(b"\n") + 1
            self._long_line += end or len(data)
            if not end:
                return
            yield self._block(self._long_line, LongLine(self._long_line), raw)
            self._long_line = 0
            data = data[end:]
        data = self._buffer + data
        first = 0
        while end := self._block_end(data, first):
            length = end - first
            too_long = length > max(self._size, LONGEST_LINE)
            yield self._block(length, LongLine(length) if too_long else data[first:end], raw)
            first = end
        self._buffer = data[first:]
        if len(self._buffer) > max(self._size, LONGEST_LINE):
            self._long_line = len(self._buffer)
            self._buffer = b""

    def _block_end(self, data: bytes, first: int) -> int:
        """Return where the block that begins at `first` ends, or 0 while it is not complete."""
        limit = first + self._size
        if len(data) < limit:
            return 0
        return data.rfind(b"\n", first, limit) + 1 or data.find(b"\n", limit) + 1

    def _block(self, length: int, data: Any, raw: BinaryIO) -> Block:
        """Return the next block, of `length` decompressed bytes."""
        start = self._start
        self._start += length
        position = 0 if self._path == STDIN else raw.tell()
        return Block(self._index, start, self._start, position, data)


def _table_blocks(
    index: int, path: Path, size: int, keys: Sequence[str], skip: int
) -> Iterator[Block]:
    """Yield the rows of a Parquet or Arrow file, the columns `keys` alone."""
    row = 0
    bytes_on_disk = path.stat().st_size
    for rows, data, fraction in read_table(path, size, LONGEST_LINE, keys):
        start = row
        row += rows
        if row <= skip:
            continue
        if isinstance(data, int):
            data = LongLine(data)
        elif start < skip:
            data = data.slice(skip - start)
            start = skip
        yield Block(index, start, row, int(bytes_on_disk * fraction), data)
