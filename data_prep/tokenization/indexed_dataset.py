"""Megatron's indexed format: written incrementally, so that a killed run can resume, and read.

`.bin` holds the ids of all sequences back to back. `.idx`, little-endian: the 9 bytes
`MMIDIDX\\0\\0`, u64 version 1, u8 type code (4 = int32, 8 = uint16), u64 sequences, u64 documents +
1, int32 length of each sequence, int64 byte offset of each sequence, int64 index of the first
sequence after each document, led by 0. Source: megatron.core.datasets.indexed_dataset. As there, a
document without any id counts as a document but has no sequence.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from galen.errors import DataError

CODES: dict[np.dtype[Any], int] = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}
MAGIC = b"MMIDIDX\x00\x00"
HEADER_BYTES = 9 + 8 + 1 + 8 + 8
CHUNK = 1 << 20
"""Entries of an index that are held in memory at a time."""

Array = np.ndarray[Any, Any]


def id_type(vocab_size: int) -> np.dtype[Any]:
    """Return the type that Megatron chooses for a vocabulary: uint16 under 65,500, else int32."""
    return np.dtype(np.uint16 if vocab_size < 65500 else np.int32)


class IndexedFileWriter:
    """Appends documents to `bin_path`, `lengths_path` and `counts_path`.

    `lengths_path` gets the lengths of their sequences, `counts_path` the number of sequences of
    each document (int32).

    Args:
        bin_path: file of ids.
        lengths_path: file of sequence lengths.
        counts_path: file of the number of sequences of each document.
        dtype: of the ids.
        documents, sequences, tokens: how much of an earlier run stays; what it wrote after that is
            cut off.
    """

    def __init__(
        self,
        bin_path: Path,
        lengths_path: Path,
        counts_path: Path,
        dtype: np.dtype[Any],
        documents: int = 0,
        sequences: int = 0,
        tokens: int = 0,
    ) -> None:
        self.dtype = dtype
        self.documents = documents
        self.sequences = sequences
        self.tokens = tokens
        self._lengths_path = lengths_path
        self._counts_path = counts_path
        self._bin, self._lengths, self._counts = (
            path.open("ab") for path in (bin_path, lengths_path, counts_path)
        )
        self._bin.truncate(tokens * dtype.itemsize)
        self._lengths.truncate(sequences * 4)
        self._counts.truncate(documents * 4)

    def add(self, ids: Array, lengths: Array, counts: Array) -> None:
        """Append documents.

        Takes ids of `dtype`, the length of each sequence, and the number of sequences of each
        document.
        """
        self._bin.write(np.ascontiguousarray(ids).data)
        self._lengths.write(lengths.astype("<i4").tobytes())
        self._counts.write(counts.astype("<i4").tobytes())
        self.documents += len(counts)
        self.sequences += len(lengths)
        self.tokens += len(ids)

    def flush(self) -> None:
        """Flush the added documents to the disk."""
        for file in (self._bin, self._lengths, self._counts):
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Flush and close the working files."""
        self.flush()
        for file in (self._bin, self._lengths, self._counts):
            file.close()

    def write_index(self, path: Path) -> None:
        """Write the `.idx`; memory use does not depend on the number of documents."""
        assert self._lengths.closed, "close first"

        def chunks(path: Path) -> Iterator[Array]:
            with path.open("rb") as file:
                while len(part := np.fromfile(file, dtype="<i4", count=CHUNK)):
                    yield part

        with path.open("wb") as file:
            write_header(file, self.dtype, self.sequences, self.documents)
            for part in chunks(self._lengths_path):
                file.write(part.data)
            write_offsets(file, chunks(self._lengths_path), self.dtype.itemsize)
            write_document_ends(file, chunks(self._counts_path))
            file.flush()
            os.fsync(file.fileno())


def write_header(file: BinaryIO, dtype: np.dtype[Any], sequences: int, documents: int) -> None:
    """Write the beginning of an index."""
    file.write(MAGIC)
    for number, number_type in (
        (1, np.uint64),
        (CODES[dtype], np.uint8),
        (sequences, np.uint64),
        (documents + 1, np.uint64),
    ):
        file.write(number_type(number).tobytes())


def write_offsets(file: BinaryIO, lengths: Iterator[Array], itemsize: int) -> None:
    """Write where each sequence begins in the `.bin`, in bytes."""
    before = 0
    for part in lengths:
        ends = np.cumsum(part, dtype="<i8")
        file.write(((ends - part + before) * itemsize).astype("<i8").data)
        before += int(ends[-1])


def write_document_ends(file: BinaryIO, counts: Iterator[Array]) -> None:
    """Write the index of the first sequence after each document, led by 0."""
    before = 0
    file.write(np.zeros(1, dtype="<i8").data)
    for part in counts:
        ends = np.cumsum(part, dtype="<i8") + before
        file.write(ends.data)
        before = int(ends[-1])


class IndexedFile:
    """A finished `PREFIX.bin` and `PREFIX.idx`, mapped rather than read.

    Args:
        prefix: path without the ending.
        with_data: also map the `.bin`.

    Raises:
        DataError: a file is missing or is not complete; the message says what is wrong.
    """

    def __init__(self, prefix: str | Path, with_data: bool = True) -> None:
        self.prefix = str(prefix).removesuffix(".idx").removesuffix(".bin")
        self.idx = Path(f"{self.prefix}.idx")
        self.bin = Path(f"{self.prefix}.bin")
        try:
            size = self.idx.stat().st_size
            with self.idx.open("rb") as file:
                header = file.read(HEADER_BYTES)
            self.bin_bytes = self.bin.stat().st_size
        except OSError as error:
            near = sorted(self.idx.parent.glob(f"{glob.escape(Path(self.prefix).name)}_*.idx"))
            hint = f"; did you mean {near[0].with_suffix('')}?" if near else ""
            raise DataError(f"cannot read {error.filename}: {error.strerror}{hint}") from None
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            raise DataError(f"{self.idx} is not an index of Megatron's format")
        version = int.from_bytes(header[9:17], "little")
        code = header[17]
        types = {number: dtype for dtype, number in CODES.items()}
        if version != 1 or code not in types:
            raise DataError(
                f"{self.idx}: version {version}, type code {code}; known are version 1, codes"
                f" {sorted(types)}"
            )
        self.dtype: np.dtype[Any] = types[code]
        self.sequences = int.from_bytes(header[18:26], "little")
        self.documents = int.from_bytes(header[26:34], "little") - 1
        expected = HEADER_BYTES + 12 * self.sequences + 8 * (self.documents + 1)
        if size != expected or self.documents < 0:
            raise DataError(
                f"{self.idx} has {size:,} bytes; {self.sequences:,} sequences in {self.documents:,}"
                f" documents need {expected:,}: damaged"
            )
        self._map()
        if self.bin_bytes != self.tokens * self.dtype.itemsize:
            needed = self.tokens * self.dtype.itemsize
            raise DataError(
                f"{self.bin} has {self.bin_bytes:,} bytes, its index speaks of {needed:,}: one of"
                " them is damaged"
            )
        self.ids = (
            np.memmap(self.bin, dtype=self.dtype, mode="r")
            if with_data and self.bin_bytes
            else np.zeros(0, dtype=self.dtype)
        )

    def _map(self) -> None:
        n = self.sequences
        start = HEADER_BYTES
        index = np.memmap(self.idx, dtype=np.uint8, mode="r")
        self.lengths: Array = np.frombuffer(index, dtype="<i4", count=n, offset=start)
        self.offsets: Array = np.frombuffer(index, dtype="<i8", count=n, offset=start + 4 * n)
        self.ends: Array = np.frombuffer(
            index, dtype="<i8", count=self.documents + 1, offset=start + 12 * n
        )
        self.tokens = (
            (int(self.offsets[-1]) // self.dtype.itemsize + int(self.lengths[-1])) if n else 0
        )

    def document(self, number: int) -> list[Array]:
        """Return the sequences of a document."""
        first = int(self.ends[number])
        last = int(self.ends[number + 1])
        starts = (self.offsets[n] // self.dtype.itemsize for n in range(first, last))
        return [self.ids[start : start + self.lengths[first + n]] for n, start in enumerate(starts)]

    def read_lengths(self, first: int = 0, last: int | None = None) -> Iterator[Array]:
        """Yield the lengths of sequences, some at a time.

        Read, not mapped, so that the memory stays small whatever the index's size.
        """
        return self._read("<i4", HEADER_BYTES, first, self.sequences if last is None else last)

    def read_counts(self) -> Iterator[Array]:
        """Yield how many sequences each document has, some at a time.

        Raises:
            DataError: a document ends before it begins, or the documents do not cover the
                sequences.
        """
        before = 0
        number = 0
        for ends in self._read("<i8", HEADER_BYTES + 12 * self.sequences, 0, self.documents + 1):
            counts = np.diff(ends, prepend=before)
            if (counts < 0).any():
                raise DataError(
                    f"{self.idx}: document {number + int(np.argmax(counts < 0)) - 1:,} ends before"
                    " it begins: it is damaged"
                )
            if not number and ends[0]:
                break
            yield counts if number else counts[1:]
            before = int(ends[-1])
            number += len(ends)
        if before != self.sequences:
            raise DataError(f"{self.idx}: its documents do not cover its sequences: it is damaged")

    def document_lengths(self) -> Iterator[Array]:
        """Yield the numbers of ids of documents, some at a time."""
        sequence = 0
        for counts in self.read_counts():
            for first in range(0, len(counts), CHUNK // 16):
                ends = np.concatenate([[0], np.cumsum(counts[first : first + CHUNK // 16])])
                lengths = [
                    np.zeros(1, dtype=np.int64),
                    *self.read_lengths(sequence, sequence + int(ends[-1])),
                ]
                yield np.diff(np.cumsum(np.concatenate(lengths))[ends])
                sequence += int(ends[-1])

    def check(self) -> None:
        """Check the complete index.

        Raises:
            DataError: a length is not positive, an offset is not where the sequences before it end,
                or the documents are out of order.
        """
        before = 0
        first = 0
        offsets = self._read("<i8", HEADER_BYTES + 4 * self.sequences, 0, self.sequences)
        for lengths, starts in zip(self.read_lengths(), offsets, strict=True):
            if (lengths <= 0).any():
                raise DataError(
                    f"{self.idx}: sequence {first + int(np.argmax(lengths <= 0)):,} has a length"
                    " below 1: it is damaged"
                )
            ends = np.cumsum(lengths, dtype=np.int64) + before
            wrong = starts != (ends - lengths) * self.dtype.itemsize
            if wrong.any():
                raise DataError(
                    f"{self.idx}: sequence {first + int(np.argmax(wrong)):,} does not begin where"
                    " the one before ends: damaged"
                )
            before = int(ends[-1])
            first += len(lengths)
        for _ in self.read_counts():
            pass

    def _read(self, dtype: str, start: int, first: int, last: int) -> Iterator[Array]:
        with self.idx.open("rb") as file:
            file.seek(start + first * np.dtype(dtype).itemsize)
            while first < last:
                part = np.fromfile(file, dtype=dtype, count=min(CHUNK, last - first))
                if not len(part):
                    raise DataError(f"{self.idx} became shorter while it was read")
                first += len(part)
                yield part
