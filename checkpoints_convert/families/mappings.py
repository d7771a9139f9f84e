"""How rows move between one Megatron tensor and the Hugging Face tensors that it is made of.

Names of tensors in a layer contain `{layer}` on the Hugging Face side, those of an expert also
`{expert}`; Megatron stacks the layers and experts of one name. A mapping says, in the order of
Megatron's rows, which rows of which Hugging Face tensor they are. Both directions follow from that
one list, by copying alone: the round trip is bit-identical, and any part can be converted without
the rest.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from checkpoints_convert.families.megatron_shapes import shape
from megatron_ext.config.architecture import Architecture

PADDING = -1


class RowRange(NamedTuple):
    """Rows from `start` to before `stop` of the Hugging Face tensor number `tensor`.

    They are zeros where `tensor` is PADDING.
    """

    tensor: int
    start: int
    stop: int


class ParamMapping(Protocol):
    """One Megatron tensor and its Hugging Face tensors, in order."""

    @property
    def megatron(self) -> str:
        """Name of the Megatron tensor."""

    @property
    def hf(self) -> tuple[str, ...]:
        """Names of the Hugging Face tensors."""

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return the source of Megatron's rows in order, without padding.

        Each Hugging Face row occurs once.
        """


@dataclass(frozen=True)
class DirectMapping:
    """The same tensor under another name."""

    megatron: str
    hf: tuple[str]

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return all rows."""
        return [RowRange(0, 0, shape(self.megatron, architecture)[0])]


@dataclass(frozen=True)
class VocabMapping:
    """A tensor with one row per token.

    Megatron pads it with zero rows, which Hugging Face does not have.
    """

    megatron: str
    hf: tuple[str]

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return the tokens' rows."""
        return [RowRange(0, 0, architecture.vocab_size)]


@dataclass(frozen=True)
class QKVMapping:
    """Query, key and value rows, interleaved by key/value group.

    A group holds its query heads, its key and its value.
    """

    megatron: str
    hf: tuple[str, str, str]

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return the rows group by group; heads follow each other in each Hugging Face tensor."""
        size = architecture.kv_channels
        queries = architecture.num_attention_heads // architecture.num_query_groups * size
        return [
            RowRange(tensor, group * height, (group + 1) * height)
            for group in range(architecture.num_query_groups)
            for tensor, height in ((0, queries), (1, size), (2, size))
        ]


@dataclass(frozen=True)
class GatedMLPMapping:
    """The gate's rows above the up projection's."""

    megatron: str
    hf: tuple[str, str]

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return the gate, then the up projection."""
        size = shape(self.megatron, architecture)[0] // 2
        return [RowRange(0, 0, size), RowRange(1, 0, size)]


@dataclass(frozen=True)
class FusedMapping:
    """One Hugging Face tensor that holds the tensors of another mapping below each other."""

    parts: ParamMapping
    hf: tuple[str]

    @property
    def megatron(self) -> str:
        """Name of the Megatron tensor."""
        return self.parts.megatron

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return the rows of the parts, counted from the beginning of the fused tensor."""
        heights = [size[0] for size in hf_shapes(self.parts, architecture)]
        starts = list(itertools.accumulate(heights, initial=0))
        return [
            RowRange(0, starts[run.tensor] + run.start, starts[run.tensor] + run.stop)
            for run in self.parts.rows(architecture)
        ]


@dataclass(frozen=True)
class ConstantMapping:
    """A constant that Hugging Face saves with the weights, without dimensions.

    Megatron's tensor has one row.
    """

    megatron: str
    hf: tuple[str]

    def rows(self, architecture: Architecture) -> list[RowRange]:
        """Return the only row."""
        return [RowRange(0, 0, 1)]


def num_rows(rows: Sequence[RowRange]) -> int:
    """Return how many rows these are."""
    return sum(run.stop - run.start for run in rows)


def hf_shapes(mapping: ParamMapping, architecture: Architecture) -> list[tuple[int, ...]]:
    """Return the sizes of the Hugging Face tensors."""
    if isinstance(mapping, ConstantMapping):
        return [()]
    width = shape(mapping.megatron, architecture)[1:]
    rows = mapping.rows(architecture)
    return [
        (max(run.stop for run in rows if run.tensor == number), *width)
        for number in range(len(mapping.hf))
    ]


def chunks(rows: Sequence[RowRange], max_rows: int) -> list[tuple[int, list[RowRange]]]:
    """Divide rows into runs of at most `max_rows`, each with its start in the Megatron tensor."""
    divided: list[tuple[int, list[RowRange]]] = []
    row = 0
    remaining = 0
    for run in rows:
        start = run.start
        while start < run.stop:
            if remaining == 0:
                divided.append((row, []))
                remaining = max_rows
            stop = min(run.stop, start + remaining)
            divided[-1][1].append(RowRange(run.tensor, start, stop))
            row += stop - start
            remaining -= stop - start
            start = stop
    return divided
