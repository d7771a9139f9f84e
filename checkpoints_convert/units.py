"""The work of a conversion, cut into pieces of bounded size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from checkpoints_convert.family import Family
from checkpoints_convert.mappings import PADDING, Mapping, Rows, chunks, height, hf_shapes
from checkpoints_convert.shapes import VOCABULARY, shape
from galen.errors import DataError
from megatron_ext.architecture import Architecture

CHUNK_BYTES = 31 * 2**20
"""Largest piece that is held in memory, in bytes of the converted tensor."""


class Source(Protocol):
    """Tensors by name, of which any rows can be read."""

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
        return sum(math.prod(size) for size in hf_shapes(self.mapping, architecture)) * dtype.itemsize


def units(family: Family, architecture: Architecture) -> list[list[Unit]]:
    """Return a model's tensors: those before the layers, each layer's, those after."""
    shared = [Unit(mapping, None) for mapping in family.mappings(architecture)]
    layers = [[Unit(mapping, layer) for mapping in family.layer] for layer in range(architecture.num_layers)]
    return [shared[:1], *layers, shared[1:]]


def padded_shape(unit: Unit, architecture: Architecture, tensor_parallel: int) -> tuple[int, ...]:
    """Return the size of a unit's Megatron tensor when it is padded for `tensor_parallel` ranks."""
    size = shape(unit.megatron, architecture)
    return (architecture.padded_vocab_size(tensor_parallel), *size[1:]) if unit.megatron in VOCABULARY else size


def pieces(unit: Unit, architecture: Architecture, dtype: torch.dtype, tensor_parallel: int = 1) -> Iterator[tuple[int, list[Rows]]]:
    """Yield a unit in runs of at most CHUNK_BYTES: the first row in the Megatron tensor, and what the rows are."""
    size = padded_shape(unit, architecture, tensor_parallel)
    rows = [run for run in unit.mapping.rows(architecture) if run.tensor != PADDING]
    missing = size[0] - sum(run.stop - run.start for run in rows)
    if missing:
        rows.append(Rows(PADDING, 0, missing))
    row_bytes = math.prod(size[1:]) * dtype.itemsize
    yield from chunks(rows, max(CHUNK_BYTES // row_bytes, 1))


def fill_megatron_rows(target: Tensor, unit: Unit, runs: list[Rows], source: Source) -> None:
    """Read these rows of a unit's Megatron tensor from the Hugging Face tensors into `target`, in its precision."""
    place = 0
    for run in runs:
        stop = place + run.stop - run.start
        if run.tensor == PADDING:
            target[place:stop] = 0
        else:
            source.read_into(target[place:stop], unit.hf[run.tensor], run.start)
        place = stop


def megatron_rows(unit: Unit, runs: list[Rows], source: Source, dtype: torch.dtype, buffer: bytearray) -> Tensor:
    """Return these rows of a unit's Megatron tensor, read into `buffer`, which grows to hold them.

    One buffer for all pieces: memory that comes and goes piece by piece would be fragmented and grow with the model.
    """
    width = source.shape(unit.hf[0])[1:]
    numbers = height(runs) * math.prod(width)
    buffer.extend(bytes(max(numbers * dtype.itemsize - len(buffer), 0)))
    target = torch.frombuffer(buffer, dtype=dtype, count=numbers).view(-1, *width)
    fill_megatron_rows(target, unit, runs, source)
    return target


def hf_pieces(unit: Unit, architecture: Architecture, dtype: torch.dtype) -> Iterator[list[tuple[int, int]]]:
    """Yield a unit's Hugging Face tensors, one after the other, in runs of at most CHUNK_BYTES.

    A run is a list of rows of the Megatron tensor, in the order of the Hugging Face tensor: the first, and the one after the last.
    """
    row_bytes = math.prod(shape(unit.megatron, architecture)[1:]) * dtype.itemsize
    stored = []  # the same rows as the mapping's, but numbered as in the Megatron tensor
    place = 0
    for run in unit.mapping.rows(architecture):
        end = place + run.stop - run.start
        if run.tensor != PADDING:
            stored.append((run, Rows(run.tensor, place, end)))
        place = end
    for number in range(len(unit.hf)):
        rows = [there for run, there in sorted(stored) if run.tensor == number]
        for _, runs in chunks(rows, max(CHUNK_BYTES // row_bytes, 1)):
            yield [(run.start, run.stop) for run in runs]


def check_shapes(unit: Unit, architecture: Architecture, source: Source, where: object) -> None:
    """Check that the Hugging Face tensors have the sizes that the configuration asks for.

    Raises:
        DataError: one has not; names the numbers.
    """
    for name, expected in zip(unit.hf, hf_shapes(unit.mapping, architecture), strict=True):
        if source.shape(name) != expected:
            raise DataError(f"{where}: {name} has the size {list(source.shape(name))}, config.json asks for {list(expected)}")
