"""Tensors that hold all experts of a layer, as gpt-oss has them on the Hub.

A matrix is [experts, inputs, outputs], a bias [experts, outputs]; the outputs of gate and up
projection alternate. Conversion sees each expert's gate, up and down projection as tensors of their
own, with a row per output as in Megatron: `….gate_up_proj[3,gate]`, `….gate_up_proj[3,up]` and
`….down_proj[3]` are those of expert 3.

The files of `openai/gpt-oss-…` have the matrices in MXFP4, which is decoded to bf16 when it is
read: `….gate_up_proj_blocks` [experts, outputs, groups, 16] and `….gate_up_proj_scales`.
"""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from checkpoints_convert.hf import mxfp4
from checkpoints_convert.hf.weights import Weights
from galen.errors import DataError
from megatron_ext.checkpoint.stored_tensor import StoredTensor

_FUSED = re.compile(r"(.+\.experts\.(gate_up_proj|down_proj)(_bias)?)(_blocks|_scales)?")
_OF_EXPERT = re.compile(r"(.+)\[(\d+)(?:,(gate|up))?\]")
_HALVES = ("gate", "up")


class Source(Protocol):
    """Tensors of single experts, of which any rows can be read."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor."""

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and the offset of its first byte."""

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows of a tensor from `start` on."""


class _ExpertTensor(NamedTuple):
    """A tensor of one expert."""

    fused: str
    """Name of the tensor of all experts."""
    expert: int
    half: int | None
    """0 for the gate, 1 for the up projection, None for another tensor."""

    @property
    def step(self) -> int:
        """Outputs of the fused tensor between two of this one."""
        return 1 if self.half is None else len(_HALVES)

    @property
    def first(self) -> int:
        """First output in the fused tensor."""
        return self.half or 0


def fused_name(name: str) -> str:
    """Return the name of the tensor in the file that holds the tensor of this name."""
    match = _OF_EXPERT.fullmatch(name)
    return name if match is None else match[1]


def _expert_tensor(name: str) -> _ExpertTensor | None:
    match = _OF_EXPERT.fullmatch(name)
    if match is None:
        return None
    return _ExpertTensor(match[1], int(match[2]), _HALVES.index(match[3]) if match[3] else None)


def _expert_names(fused: str, experts: int) -> list[list[str]]:
    """Return the names of each expert's tensors in a fused one."""
    if "gate_up_proj" not in fused:
        return [[f"{fused}[{expert}]"] for expert in range(experts)]
    return [[f"{fused}[{expert},{half}]" for half in _HALVES] for expert in range(experts)]


class ExpertWeights(Weights):
    """The tensors of a folder, those of experts apart and decoded.

    Args:
        folder: a Hugging Face folder.
        rename: as of Weights.

    Raises:
        DataError: as of Weights, or a fused tensor has another number of axes or type.
    """

    def __init__(
        self, folder: str | Path, rename: Callable[[str], str | None] | None = None
    ) -> None:
        super().__init__(folder, rename)
        self._experts: dict[str, int] = {}
        """Number of experts by name of the fused tensor."""
        self._last: tuple[tuple[str, int], Tensor] | None = None
        for name in self.tensors:
            match = _FUSED.fullmatch(name)
            if match is not None and match[4] != "_scales":
                self._experts[match[1]] = self._check(match[1])

    def names(self) -> set[str]:
        """Return the names of all tensors."""
        names = {name for name in self.tensors if _FUSED.fullmatch(name) is None}
        for fused, experts in self._experts.items():
            names |= {name for one in _expert_names(fused, experts) for name in one}
        return names

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and the offset of its first byte."""
        one = _expert_tensor(name)
        if one is None:
            return super().location(name)
        stored = self._stored(one)
        stride = math.prod(stored.shape[1:]) * stored.dtype.itemsize
        return str(stored.path), stored.offset + one.expert * stride

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor; KeyError for an unknown name."""
        one = _expert_tensor(name)
        if one is None:
            return super().shape(name)
        stored = self._stored(one)
        size = stored.shape[1:]
        if self._is_encoded(one):
            return size[0] // one.step, size[1] * mxfp4.GROUP
        return (size[-1] // one.step, *size[:-1])

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor once it is read; KeyError for an unknown name."""
        one = _expert_tensor(name)
        if one is None:
            return super().dtype(name)
        return torch.bfloat16 if self._is_encoded(one) else self._stored(one).dtype

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read some rows of a tensor; KeyError for an unknown name."""
        if _expert_tensor(name) is None:
            return super().rows(name, start, stop)
        target = torch.empty(stop - start, *self.shape(name)[1:], dtype=self.dtype(name))
        self.read_into(target, name, start)
        return target

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on.

        Raises:
            KeyError: the name is unknown.
            DataError: an MXFP4 scale is NaN.
        """
        one = _expert_tensor(name)
        if one is None:
            super().read_into(target, name, start)
            return
        first = one.first + start * one.step
        rows = len(target)
        if not self._is_encoded(one):
            target.copy_(self._outputs(one)[first : first + rows * one.step : one.step])
            return
        blocks = _groups(self.tensors[f"{one.fused}_blocks"], one, first, rows)
        scales = _groups(self.tensors[f"{one.fused}_scales"], one, first, rows)
        try:
            target.copy_(mxfp4.decode(blocks, scales))
        except DataError as error:
            path = self.tensors[f"{one.fused}_scales"].path
            raise DataError(f"{path} is damaged: {one.fused}_scales: {error}") from None

    def _outputs(self, one: _ExpertTensor) -> Tensor:
        """Return an expert's part of a fused tensor with a row per output.

        The last one is kept, as it is read in several slices.
        """
        key = one.fused, one.expert
        if self._last is None or self._last[0] != key:
            part = self.tensors[one.fused].rows(one.expert, one.expert + 1)[0]
            if part.dim() > 1:
                part = torch.empty(part.mT.shape, dtype=part.dtype).copy_(part.mT)
            self._last = key, part
        return self._last[1]

    def _is_encoded(self, one: _ExpertTensor) -> bool:
        return one.fused not in self.tensors

    def _stored(self, one: _ExpertTensor) -> StoredTensor:
        return self.tensors[f"{one.fused}_blocks" if self._is_encoded(one) else one.fused]

    def _check(self, fused: str) -> int:
        """Return the number of experts of a fused tensor."""
        blocks = self.tensors.get(f"{fused}_blocks")
        if blocks is None:
            stored = self.tensors[fused]
            axes = 2 if fused.endswith("_bias") else 3
            if len(stored.shape) != axes:
                raise DataError(
                    f"{stored.path}: {fused} has {len(stored.shape)} axes instead of {axes}"
                )
            _check_halves(stored, fused, stored.shape[-1])
            return stored.shape[0]
        if fused in self.tensors:
            raise DataError(f"{blocks.path} holds both {fused} and {fused}_blocks")
        scales = self.tensors.get(f"{fused}_scales")
        if scales is None:
            raise DataError(f"{blocks.path} holds {fused}_blocks without {fused}_scales")
        is_mxfp4 = (
            blocks.dtype == scales.dtype == torch.uint8
            and len(blocks.shape) == 4
            and blocks.shape == (*scales.shape, mxfp4.GROUP // 2)
        )
        if not is_mxfp4:
            raise DataError(
                f"{blocks.path}: {fused}_blocks {list(blocks.shape)} and its scales"
                f" {list(scales.shape)} are not MXFP4: bytes, 16 and one per group of 32"
            )
        _check_halves(blocks, fused, blocks.shape[1])
        return blocks.shape[0]


def _check_halves(stored: StoredTensor, fused: str, outputs: int) -> None:
    if outputs % len(_expert_names(fused, 1)[0]):
        raise DataError(f"{stored.path}: {fused} has {outputs} outputs: gate and up alternate")


def _groups(stored: StoredTensor, one: _ExpertTensor, first: int, rows: int) -> Tensor:
    """Read the bytes of outputs of an expert from a fused MXFP4 tensor."""
    row = math.prod(stored.shape[2:])
    inner = stored.shape[2:]
    strides = (one.step * row, *(math.prod(inner[axis + 1 :]) for axis in range(len(inner))))
    offset = stored.offset + (one.expert * stored.shape[1] + first) * row
    return StoredTensor(stored.path, offset, stored.dtype, (rows, *inner), strides).read()


def is_quantized(weights: Weights) -> bool:
    """Return whether weights are in MXFP4."""
    return isinstance(weights, ExpertWeights) and any(
        name.endswith("_blocks") for name in weights.tensors
    )


class FusedExperts:
    """A source that has the tensors of single experts, read as the fused tensors of a file.

    Args:
        source: the tensors of experts and all others.
        names: of all tensors of the source.
    """

    def __init__(self, source: Source, names: Iterable[str]) -> None:
        self._source = source
        self._experts: dict[str, int] = {}
        for name in names:
            if (one := _expert_tensor(name)) is not None:
                self._experts[one.fused] = max(self._experts.get(one.fused, 0), one.expert + 1)

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and the offset of its first byte."""
        return self._source.location(self._first(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor; KeyError for an unknown name."""
        size = self._source.shape(self._first(name))
        if name not in self._experts:
            return size
        halves = len(_expert_names(name, 1)[0])
        return (self._experts[name], *size[1:], halves * size[0])

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor; KeyError for an unknown name."""
        return self._source.dtype(self._first(name))

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the tensors of the experts from `start` on."""
        if name not in self._experts:
            self._source.read_into(target, name, start)
            return
        names = _expert_names(name, start + len(target))[start:]
        for one, halves in zip(target, names, strict=True):
            for first, half in enumerate(halves):
                rows = torch.empty(self._source.shape(half), dtype=target.dtype)
                self._source.read_into(rows, half, 0)
                one[..., first :: len(halves)] = rows.mT if rows.dim() == 2 else rows

    def _first(self, name: str) -> str:
        return _expert_names(name, 1)[0][0] if name in self._experts else name
