"""Packing of documents into sequences without cutting those that fit (best-fit decreasing).

After Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830). Only a
document longer than a sequence is divided: into full sequences, and a rest that is packed.
"""

import bisect
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset
from torch import Tensor

from galen.atomic import atomic_file
from megatron_ext.data.padded_documents import build_sequence, padded_length
from megatron_ext.data.token_files import document_lengths

Array = numpy.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Documents, or pieces of long ones, in rows."""

    bounds: Array
    """Number of pieces before each row, and in all, int64."""
    pieces: Array
    """Document, offset and padded size of each piece, [pieces, 3], int64."""


def pack(lengths: Array, row_length: int, multiple: int, seed: int) -> PackedRows:
    """Pack documents into rows, the longest first, each into the fullest row that has room.

    Documents of one length are in random order, as are the rows.

    Args:
        lengths: tokens of each document.
        row_length: tokens of a row, a multiple of `multiple`.
        multiple: each document is padded to a multiple of so many tokens.
        seed: of the random order.
    """
    random = numpy.random.default_rng(seed)
    pieces = _divide(padded_length(lengths.astype(numpy.int64), multiple), row_length)
    pieces = pieces[random.permutation(len(pieces))]
    pieces = pieces[numpy.argsort(-pieces[:, 2], kind="stable")]
    rows = _best_fit(pieces[:, 2], row_length)
    count = int(rows.max(initial=-1)) + 1
    rows = random.permutation(count)[rows]
    bounds = numpy.zeros(count + 1, numpy.int64)
    numpy.cumsum(numpy.bincount(rows, minlength=count), out=bounds[1:])
    return PackedRows(bounds, pieces[numpy.argsort(rows, kind="stable")])


def _divide(sizes: Array, row_length: int) -> Array:
    """Return document, offset and size of each piece, [pieces, 3]; none is longer than a row."""
    counts = -(-sizes // row_length)
    documents = numpy.repeat(numpy.arange(len(sizes)), counts)
    firsts = numpy.cumsum(counts) - counts
    offsets = (numpy.arange(len(documents)) - firsts[documents]) * row_length
    return numpy.stack(
        [documents, offsets, numpy.minimum(sizes[documents] - offsets, row_length)], axis=1
    )


def _best_fit(sizes: Array, row_length: int) -> Array:
    """Return the row of each piece.

    Pieces of one size are placed together: a row with room for k of them takes k, as one by one.

    Args:
        sizes: of the pieces, in descending order.
        row_length: size of an empty row.
    """
    rows = numpy.empty(len(sizes), numpy.int64)
    space = _Space(row_length)
    distinct, firsts = numpy.unique(-sizes, return_index=True)
    bounds = [*firsts.tolist(), len(sizes)]
    for size, (first, end) in zip((-distinct).tolist(), itertools.pairwise(bounds), strict=True):
        while first < end:
            room = space.smallest(size)
            per_row = room // size
            taken = space.take(room, max((end - first) // per_row, 1))
            placed = min(per_row * len(taken), end - first)
            rows[first : first + placed] = numpy.repeat(taken, per_row)[:placed]
            space.give(room - size * (placed // len(taken)), taken)
            first += placed
    return rows


class _Space:
    """Rows by their free tokens; there is always an empty row."""

    def __init__(self, row_length: int) -> None:
        self._row_length = row_length
        self._rows: dict[int, list[int]] = {}
        self._rooms: list[int] = []
        """Free tokens of the rows, ascending, without empty rows."""
        self._count = 0

    def smallest(self, size: int) -> int:
        """Return the free tokens of the fullest row with room for `size`."""
        index = bisect.bisect_left(self._rooms, size)
        return self._rooms[index] if index < len(self._rooms) else self._row_length

    def take(self, room: int, count: int) -> list[int]:
        """Return at most `count` rows with so many free tokens."""
        if room == self._row_length:
            self._count += count
            return list(range(self._count - count, self._count))
        rows = self._rows[room]
        taken = rows[-count:]
        del rows[-count:]
        if not rows:
            del self._rows[room]
            self._rooms.pop(bisect.bisect_left(self._rooms, room))
        return taken

    def give(self, room: int, rows: list[int]) -> None:
        """Return rows with so many free tokens."""
        if room == 0:
            return
        if room not in self._rows:
            self._rows[room] = []
            bisect.insort(self._rooms, room)
        self._rows[room] += rows


class BestFitDocuments(torch.utils.data.Dataset):
    """Sequences of packed documents, each document once.

    Args:
        prefix: of the token files.
        rows: result of `pack`.
        length: tokens of a sequence.
        masked: id without a loss after it; None for none.
    """

    def __init__(self, prefix: str, rows: PackedRows, length: int, masked: int | None) -> None:
        self._dataset = IndexedDataset(prefix)
        self._rows = rows
        self._length = length
        self._masked = masked

    def __len__(self) -> int:
        return len(self._rows.bounds) - 1

    def __getitem__(self, sample: int) -> dict[str, Tensor]:
        """Return `{tokens, labels, loss_mask, position_ids, padding}`, as of PaddedDocuments."""
        first, last = self._rows.bounds[sample : sample + 2].tolist()
        parts = [
            (self._ids(document, offset, size + 1), size)
            for document, offset, size in self._rows.pieces[first:last].tolist()
        ]
        return build_sequence(parts, self._length, self._masked)

    def _ids(self, document: int, offset: int, size: int) -> Any:
        """Return the ids of a document from an offset on, at most `size`."""
        available = int(self._dataset.sequence_lengths[document]) - offset
        return self._dataset.get(document, offset=offset, length=min(size, available))


def cached_rows(prefix: str, cache: Path, row_length: int, multiple: int, seed: int) -> PackedRows:
    """Return the rows of a file (collective: rank 0 packs into the cache, the others read it)."""
    cache.mkdir(parents=True, exist_ok=True)
    name = f"bfd_{row_length}_{multiple}_{seed}"
    bounds_path = cache / f"{name}_bounds.npy"
    pieces_path = cache / f"{name}_pieces.npy"
    is_cached = bounds_path.is_file() and pieces_path.is_file()
    if torch.distributed.get_rank() == 0 and not is_cached:
        rows = pack(document_lengths(prefix), row_length, multiple, seed)
        for path, array in ((pieces_path, rows.pieces), (bounds_path, rows.bounds)):
            with atomic_file(path) as partial, partial.open("wb") as file:
                numpy.save(file, array)
    torch.distributed.barrier()
    return PackedRows(
        numpy.load(bounds_path, mmap_mode="r"), numpy.load(pieces_path, mmap_mode="r")
    )
