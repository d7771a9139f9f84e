"""Input of the tokeniser in blocks of a few megabytes.

JSONL (plain, gzip, zstd, bzip2, xz), Parquet, Arrow, or standard input.

A block of a plain file is only a range of bytes: the process that works on it reads it. All else is
decompressed here, in order.
"""

import bisect
import io
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
    tuple(
        f"{kind}{suffix}" for kind in (".jsonl", ".ndjson", ".json") for suffix in ("", *SUFFIXES)
    )
    + TABLES
)
STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the input, or a range of lines of a plain one."""

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
        return (self.path.stat().st_size if self.end is None else self.end) - self.start


@dataclass(slots=True)
class Block:
    """Some whole lines or rows that follow each other."""

    part: int
    """Which of the parts."""

    start: int
    """Where it begins: a byte of the decompressed file, or a row of a table."""

    end: int
    """Where the next one begins."""

    position: int
    """Bytes of the part, as it lies on the disk, read up to its end."""

    data: Any = None
    """The block's lines as bytes, its rows as an Arrow record batch, or None.

    None stands for the bytes start to end of a plain file, `LongLine` for a line that is too long.
    """


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that is too long to be a record."""

    length: int
    """Bytes, those of the line's end included."""


def is_plain(path: Path) -> bool:
    """Say whether a file is plain JSONL, which can be read from any line on."""
    return path != STDIN and path.suffix.lower() not in (*SUFFIXES, *TABLES)


def share_out(files: Sequence[Path], shards: int) -> list[list[Part]]:
    """Return the parts of each shard: neighbours in the input, about equal in bytes.

    Only plain files are cut, at ends of lines.

    If all are compressed files or tables, each shard gets at least one if there are enough.

    Raises:
        UsageError: some shard would be empty.
    """
    if shards == 1:
        return [[Part(path) for path in files]]
    if STDIN in files:
        raise UsageError("--shards: standard input cannot be shared out; give files")
    sizes = [path.stat().st_size for path in files]
    bounds = [sum(sizes) * shard // shards for shard in range(shards + 1)]
    result: list[list[Part]] = [[] for _ in range(shards)]
    before, last, cuttable = 0, -1, any(map(is_plain, files))
    for number, (path, size) in enumerate(zip(files, sizes, strict=True)):
        if is_plain(path):
            for shard in range(shards):
                low, high = max(bounds[shard] - before, 0), min(bounds[shard + 1] - before, size)
                start, end = line_start(path, low, size), line_start(path, high, size)
                if low < high and start < end:
                    result[shard].append(Part(path, start, end))
        else:
            middle = bisect.bisect_right(bounds, before + size // 2, hi=shards) - 1
            # of uncut files, no shard may be passed over, and each one after this needs a file
            last = middle if cuttable else min(max(middle, shards - len(files) + number), last + 1)
            result[last].append(Part(path))
        before += size
    filled = sum(map(bool, result))
    if filled < shards:
        unsplittable = sum(not is_plain(path) for path in files)
        why = (
            f"{unsplittable} of the {len(files)} files are compressed or tables, which are not"
            " split"
            if unsplittable
            else "the lines are too long for that"
        )
        raise UsageError(
            f"--shards {shards}: the input fills only {filled} of them ({why}); ask for fewer, or"
            " decompress the files"
        )
    return result


def read_blocks(
    parts: Sequence[Part],
    size: int,
    keys: Sequence[str],
    skip_parts: int = 0,
    skip: int = 0,
    taken: Callable[[bytes], None] | None = None,
) -> Iterator[Block]:
    """Yield the blocks of all parts in order, each of about `size` bytes.

    `keys` are the wanted columns of tables.

    The first `skip_parts` parts are left out, and `skip` bytes (rows of a table) at the beginning
    of the one after them. `taken` is called with every piece of standard input.

    Raises:
        DataError: a file cannot be read or is damaged; the message names it.
    """
    for index in range(skip_parts, len(parts)):
        part, left_out = parts[index], skip if index == skip_parts else 0
        try:
            if part.path.suffix.lower() in TABLES:
                yield from _table_blocks(index, part.path, size, keys, left_out)
            elif is_plain(part.path):
                yield from _plain_blocks(index, part, size, left_out)
            else:
                yield from _stream_blocks(index, part.path, size, left_out, taken)
        except CorruptDataError as error:
            name = format_of(part.path.name)
            raise DataError(f"{part.path} is not complete {name} data: {error}") from None
        except OSError as error:
            raise DataError(f"{part.path} cannot be read: {error.strerror or error}") from None


def read_range(path: Path, start: int, end: int) -> bytes:
    """Return bytes `start` to `end` of a file.

    Raises:
        DataError: it cannot be read or has become shorter.
    """
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            data = file.read(end - start)
            # what one call gives is limited
            while len(data) < end - start and (piece := file.read(end - start - len(data))):
                data += piece
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) < end - start:
        raise DataError(f"{path} became shorter while it was read")
    return data


def line_number(part: Part, offset: int) -> int:
    """Return the number, from 1, of the line at byte `offset` of a part's decompressed file."""
    count, left = 1, offset
    with part.path.open("rb") as raw:
        for data in decompress(raw, part.path.name):
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
        return offset - 1 + _pass_line(file)


def _plain_blocks(index: int, part: Part, size: int, skip: int) -> Iterator[Block]:
    with part.path.open("rb", buffering=1 << 14) as file:
        end = file.seek(0, io.SEEK_END) if part.end is None else part.end
        start = max(skip, part.start)
        while start < end:
            stop = min(start + size, end)
            if stop < end:
                file.seek(stop - 1)
                stop += _pass_line(file) - 1
            if stop - start <= size or stop - start <= LONGEST_LINE:
                yield Block(index, start, stop, stop - part.start)
            else:
                yield from _around_long_line(
                    file, Block(index, start, stop, stop - part.start), size
                )
            start = stop


def _pass_line(file: BinaryIO) -> int:
    """Read on to the end of a line, in little memory; return how many bytes that were."""
    length = 0
    while data := file.readline(CHUNK_BYTES):
        length += len(data)
        if data.endswith(b"\n"):
            break
    return length


def _around_long_line(file: BinaryIO, block: Block, size: int) -> Iterator[Block]:
    """Yield a block of a plain file whose last line is far longer, as whole lines and that one."""
    file.seek(block.start)
    head = file.read(size)
    line = block.start + head.rfind(b"\n") + 1
    if line > block.start:
        yield Block(block.part, block.start, line, block.position - (block.end - line))
    length = block.end - line
    yield Block(
        block.part,
        line,
        block.end,
        block.position,
        LongLine(length) if length > LONGEST_LINE else None,
    )


def _stream_blocks(
    index: int, path: Path, size: int, skip: int, taken: Callable[[bytes], None] | None
) -> Iterator[Block]:
    raw: BinaryIO = sys.stdin.buffer if path == STDIN else path.open("rb")
    with raw:
        start, held, passed = skip, b"", 0
        for data in decompress(raw, path.name):
            if taken is not None and path == STDIN:
                taken(data)
            if skip:
                data, skip = data[skip:], max(skip - len(data), 0)
            if passed:  # inside a line that is too long
                cut = data.find(b"\n") + 1
                passed += cut or len(data)
                if not cut:
                    continue
                yield Block(index, start, start + passed, _position(raw, path), LongLine(passed))
                start, data, passed = start + passed, data[cut:], 0
            data, first = held + data, 0
            while len(data) - first >= size:
                cut = (
                    data.rfind(b"\n", first, first + size) + 1 or data.find(b"\n", first + size) + 1
                )
                if not cut:
                    break
                whole = (
                    data[first:cut]
                    if cut - first <= max(size, LONGEST_LINE)
                    else LongLine(cut - first)
                )
                yield Block(index, start, start + cut - first, _position(raw, path), whole)
                start, first = start + cut - first, cut
            held = data[first:]
            if len(held) > max(size, LONGEST_LINE):
                held, passed = b"", len(held)
        if passed:
            yield Block(index, start, start + passed, _position(raw, path), LongLine(passed))
        elif held:
            yield Block(index, start, start + len(held), _position(raw, path), held)


def _position(raw: BinaryIO, path: Path) -> int:
    return 0 if path == STDIN else raw.tell()


def _table_blocks(
    index: int, path: Path, size: int, keys: Sequence[str], skip: int
) -> Iterator[Block]:
    """Yield the rows of a Parquet or Arrow file, the columns `keys` alone."""
    row, bytes_on_disk = 0, path.stat().st_size
    for rows, data, share in read_table(path, size, LONGEST_LINE, keys):
        start, row = row, row + rows
        if row <= skip:
            continue
        if isinstance(data, int):
            data = LongLine(data)
        elif start < skip:
            data, start = data.slice(skip - start), skip
        yield Block(index, start, row, int(bytes_on_disk * share), data)
