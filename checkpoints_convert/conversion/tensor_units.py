"""The work of a conversion, cut into pieces of bounded size."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import PADDING, Mapping, Rows, chunks, height, hf_shapes
from checkpoints_convert.families.megatron_shapes import VOCABULARY, shape
from checkpoints_convert.resumable_io.prefetch import Piece
from megatron_ext.config.architecture import Architecture

CHUNK_BYTES = 31 * 2**20
"""Largest piece that is held in memory, in bytes of the converted tensor."""


class Source(Protocol):
    """Hugging Face tensors by name, of which any rows can be read."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor."""

    def place(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and its first byte there."""

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows of a tensor from `start` on, in the precision of `target`."""


@dataclass(frozen=True)
class Unit:
    """One mapping in one layer: the Megatron tensor of that layer and its Hugging Face tensors."""

    mapping: Mapping
    layer: int | None
    """None for a tensor that exists once."""

    @property
    def hf(self) -> list[str]:
        """Names of the Hugging Face tensors."""
        return [name.format(layer=self.layer) for name in self.mapping.hf]

    @property
    def megatron(self) -> str:
        """Name of the Megatron tensor; all layers share it."""
        return self.mapping.megatron

    def nbytes(self, architecture: Architecture, dtype: torch.dtype) -> int:
        """Return the size of the Hugging Face tensors in bytes."""
        return (
            sum(math.prod(size) for size in hf_shapes(self.mapping, architecture)) * dtype.itemsize
        )


def parts(family: Family, architecture: Architecture) -> list[list[Unit]]:
    """Return a model's tensors grouped into files: before the layers, each layer, after them."""
    shared = [Unit(mapping, None) for mapping in family.mappings(architecture)]
    layers = [
        [Unit(mapping, layer) for mapping in family.layer]
        for layer in range(architecture.num_layers)
    ]
    return [shared[:1], *layers, shared[1:]]


def units(family: Family, architecture: Architecture) -> list[Unit]:
    """Return all of a model's tensors."""
    return [unit for part in parts(family, architecture) for unit in part]


def padded_shape(unit: Unit, architecture: Architecture, tensor_parallel: int) -> tuple[int, ...]:
    """Return the size of a unit's Megatron tensor when it is padded for `tensor_parallel` ranks."""
    size = shape(unit.megatron, architecture)
    return (
        (architecture.padded_vocab_size(tensor_parallel), *size[1:])
        if unit.megatron in VOCABULARY
        else size
    )


def megatron_pieces(
    unit: Unit,
    architecture: Architecture,
    source: Source,
    dtype: torch.dtype,
    tensor_parallel: int | None = None,
) -> Iterator[tuple[int, Piece]]:
    """Yield a unit's Megatron tensor in pieces, each with the index of its first row.

    A piece has at most CHUNK_BYTES of this precision. With `tensor_parallel`, the zero rows that
    pad the vocabulary for so many ranks are included.
    """
    width = shape(unit.megatron, architecture)[1:]
    rows = unit.mapping.rows(architecture)
    if tensor_parallel is not None and (
        padding := padded_shape(unit, architecture, tensor_parallel)[0] - height(rows)
    ):
        rows.append(Rows(PADDING, 0, padding))
    for place, runs in chunks(rows, _rows_at_once(width, dtype)):
        yield (
            place,
            Piece(
                (height(runs), *width),
                dtype,
                partial(_fill, names=unit.hf, runs=runs, source=source),
            ),
        )


def hf_pieces(name: str, source: Source, dtype: torch.dtype) -> Iterator[Piece]:
    """Yield a Hugging Face tensor in order, in pieces of at most CHUNK_BYTES of this precision."""
    rows, *width = source.shape(name)
    most = _rows_at_once(width, dtype)
    for start in range(0, rows, most):
        yield Piece(
            (min(most, rows - start), *width),
            dtype,
            partial(source.read_into, name=name, start=start),
        )


def _rows_at_once(width: Sequence[int], dtype: torch.dtype) -> int:
    return max(CHUNK_BYTES // (math.prod(width) * dtype.itemsize), 1)


def _fill(target: Tensor, names: Sequence[str], runs: Sequence[Rows], source: Source) -> None:
    """Fill `target` with rows of the Hugging Face tensors of these names, run after run."""
    place = 0
    for run in runs:
        stop = place + run.stop - run.start
        if run.tensor == PADDING:
            target[place:stop] = 0
        else:
            source.read_into(target[place:stop], names[run.tensor], run.start)
        place = stop
