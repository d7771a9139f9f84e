"""The work of a conversion, divided into slices of bounded size."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import (
    PADDING,
    ParamMapping,
    RowRange,
    chunks,
    hf_shapes,
    num_rows,
)
from checkpoints_convert.families.megatron_shapes import (
    VOCAB_TENSORS,
    is_expert,
    shape,
    stack_sizes,
)
from checkpoints_convert.resumable_io.prefetch import TensorSlice
from megatron_ext.config.architecture import Architecture

CHUNK_BYTES = 31 * 2**20
"""Largest slice that is held in memory, in bytes of the converted tensor."""


class Source(Protocol):
    """Hugging Face tensors by name, of which any rows can be read."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor."""

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and the offset of its first byte."""

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows of a tensor from `start` on, in the precision of `target`."""


@dataclass(frozen=True)
class WeightConversionTask:
    """One mapping in one layer and expert: a Megatron tensor and its Hugging Face tensors."""

    mapping: ParamMapping
    layer: int | None = None
    """None for a tensor that exists once."""
    expert: int | None = None
    """None for a tensor that is not an expert's."""

    @property
    def hf(self) -> list[str]:
        """Names of the Hugging Face tensors."""
        return [name.format(layer=self.layer, expert=self.expert) for name in self.mapping.hf]

    @property
    def megatron(self) -> str:
        """Name of the Megatron tensor; all layers and experts share it."""
        return self.mapping.megatron

    @property
    def index(self) -> tuple[int, ...]:
        """Layer and expert, where it has them: indices in the stacked Megatron tensor."""
        return tuple(number for number in (self.layer, self.expert) if number is not None)

    @property
    def label(self) -> str:
        """Layer and expert for messages."""
        if self.expert is not None:
            return f"layer {self.layer}, expert {self.expert}"
        return f"layer {self.layer}"

    def nbytes(self, architecture: Architecture, dtype: torch.dtype) -> int:
        """Return the size of the Hugging Face tensors in bytes."""
        return (
            sum(math.prod(size) for size in hf_shapes(self.mapping, architecture)) * dtype.itemsize
        )


def tasks_by_file(family: Family, architecture: Architecture) -> list[list[WeightConversionTask]]:
    """Return a model's tensors grouped into files: before the layers, each layer, after them."""
    shared = [WeightConversionTask(mapping, None) for mapping in family.mappings(architecture)]
    layers = [_layer_tasks(family, architecture, layer) for layer in range(architecture.num_layers)]
    return [shared[:1], *layers, shared[1:]]


def _layer_tasks(
    family: Family, architecture: Architecture, layer: int
) -> list[WeightConversionTask]:
    """Return the tensors of one layer, a task per expert for those of experts."""
    tasks = []
    for mapping in family.layer:
        experts: Iterable[int | None] = [None]
        if is_expert(mapping.megatron):
            experts = range(architecture.num_moe_experts or 0)
        tasks += [WeightConversionTask(mapping, layer, expert) for expert in experts]
    return tasks


def all_tasks(family: Family, architecture: Architecture) -> list[WeightConversionTask]:
    """Return all of a model's tensors."""
    return [task for part in tasks_by_file(family, architecture) for task in part]


def padded_shape(
    task: WeightConversionTask, architecture: Architecture, tensor_parallel: int
) -> tuple[int, ...]:
    """Return the size of a task's Megatron tensor when it is padded for `tensor_parallel` ranks."""
    size = shape(task.megatron, architecture)
    return (
        (architecture.padded_vocab_size(tensor_parallel), *size[1:])
        if task.megatron in VOCAB_TENSORS
        else size
    )


def stacked_shape(
    task: WeightConversionTask, architecture: Architecture, tensor_parallel: int
) -> tuple[int, ...]:
    """Return the size of a task's Megatron tensor with the axes over all layers and experts."""
    size = padded_shape(task, architecture, tensor_parallel)
    return stack_sizes(task.megatron, architecture) + size


def megatron_slices(
    task: WeightConversionTask,
    architecture: Architecture,
    source: Source,
    dtype: torch.dtype,
    tensor_parallel: int | None = None,
) -> Iterator[tuple[int, TensorSlice]]:
    """Yield a task's Megatron tensor in slices, each with the index of its first row.

    A slice has at most CHUNK_BYTES of this precision. With `tensor_parallel`, the zero rows that
    pad the vocabulary for so many ranks are included.
    """
    width = shape(task.megatron, architecture)[1:]
    rows = task.mapping.rows(architecture)
    if tensor_parallel is not None and (
        padding := padded_shape(task, architecture, tensor_parallel)[0] - num_rows(rows)
    ):
        rows.append(RowRange(PADDING, 0, padding))
    for first_row, runs in chunks(rows, _rows_at_once(width, dtype)):
        yield (
            first_row,
            TensorSlice(
                (num_rows(runs), *width),
                dtype,
                partial(_fill, names=task.hf, runs=runs, source=source),
            ),
        )


def hf_slices(name: str, source: Source, dtype: torch.dtype) -> Iterator[TensorSlice]:
    """Yield a Hugging Face tensor in order, in slices of at most CHUNK_BYTES of this precision."""
    rows, *width = source.shape(name) or (1,)  # a constant has no dimensions
    max_rows = _rows_at_once(width, dtype)
    for start in range(0, rows, max_rows):
        yield TensorSlice(
            (min(max_rows, rows - start), *width),
            dtype,
            partial(source.read_into, name=name, start=start),
        )


def _rows_at_once(width: Sequence[int], dtype: torch.dtype) -> int:
    return max(CHUNK_BYTES // (math.prod(width) * dtype.itemsize), 1)


def _fill(target: Tensor, names: Sequence[str], runs: Sequence[RowRange], source: Source) -> None:
    """Fill `target` with rows of the Hugging Face tensors of these names, run after run."""
    row = 0
    for run in runs:
        stop = row + run.stop - run.start
        if run.tensor == PADDING:
            target[row:stop] = 0
        else:
            source.read_into(target[row:stop], names[run.tensor], run.start)
        row = stop
