"""Reads the optimizer state of a `dp_reshardable` checkpoint in the coordinates of the weights.

Megatron's distributed optimizer keeps its state in flat buckets. In the format `dp_reshardable`
they are written as they are, without communication, but their content depends on tensor and
pipeline parallelism. `optimizer_buckets.json`, beside the files, has the place of each shard of
each weight in the buckets. With it any layout can load the state, and `galen reshard` rewrites it
as `fully_reshardable`.
"""

import copy
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import metadata as dcp

from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError
from megatron_ext.checkpoint import pickle_values, safe_pickle
from megatron_ext.checkpoint.torch_dist import TorchDist

NAME = "optimizer_buckets.json"
DP_RESHARDABLE = "dp_reshardable"
FULLY_RESHARDABLE = "fully_reshardable"
PREFIX = "optimizer.distributed."
"""Of the names of buckets and of the objects beside them, after `chain_prefix`."""
_IN_BUCKETS = re.compile(r"(?:chained_\d+\.)?optimizer\.distributed\.")
_GROUPS = re.compile(
    r"(?:chained_(\d+)\.)?optimizer\.distributed\.dp_group_idx_(\d+)\.optimizer/shard_0_1"
)


def chain_prefix(index: int, count: int) -> str:
    """Return what precedes the names of an optimizer, one of `count` that Megatron chains.

    Under expert parallelism there are two, the second for the experts.
    """
    return "" if count == 1 else f"chained_{index}."


def is_in_buckets(name: str) -> bool:
    """Return whether a tensor or object is a bucket or beside one."""
    return _IN_BUCKETS.match(name) is not None


@dataclasses.dataclass(frozen=True, order=True)
class BucketSlice:
    """The numbers of a bucket that belong to one shard of a weight."""

    bucket: str
    """Name of the bucket; its tensors have a suffix for each state of the optimizer."""
    start: int
    """Index of the first number."""
    key: str
    """Name of the weight."""
    shape: tuple[int, ...]
    """Of the entire weight, layers stacked along the first axis."""
    offset: tuple[int, ...]
    """Of the shard in it."""
    size: tuple[int, ...]
    """Of the shard."""
    is_main: bool
    """False for copies of a shard that another bucket holds, too."""

    @property
    def numel(self) -> int:
        """Count of numbers."""
        return math.prod(self.size)


def write(folder: Path, slices: Iterable[BucketSlice]) -> None:
    """Write the slices beside the files of an iteration."""
    content = {"slices": [dataclasses.astuple(one) for one in slices]}
    write_text(folder / NAME, json.dumps(content) + "\n")


def read(folder: Path) -> list[BucketSlice] | None:
    """Return the slices of an iteration, None if its optimizer state is in no buckets.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    records = json_file.read_object(path).get("slices")
    if not isinstance(records, list):
        raise DataError(f"{path} is damaged: it has no list of slices; copy the checkpoint again")
    return [_slice(record, f"{path}, slice {number}") for number, record in enumerate(records)]


def _slice(record: Any, where: str) -> BucketSlice:
    """Return a slice from its JSON list."""
    damaged = DataError(f"{where} is damaged; copy the checkpoint again")
    if not isinstance(record, list) or len(record) != len(dataclasses.fields(BucketSlice)):
        raise damaged
    bucket, start, key, *shapes, is_main = record
    if not (isinstance(bucket, str) and isinstance(key, str) and isinstance(is_main, bool)):
        raise damaged
    if not all(isinstance(one, list) and 0 < len(one) == len(shapes[0]) for one in shapes):
        raise damaged
    numbers = [start, *(number for one in shapes for number in one)]
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise damaged
    shape, offset, size = map(tuple, shapes)
    ends = (begin + length for begin, length in zip(offset, size, strict=True))
    if any(end > length for end, length in zip(ends, shape, strict=True)):
        raise damaged
    return BucketSlice(bucket, start, key, shape, offset, size, is_main)


class ModelSpace:
    """The optimizer state in buckets, as tensors of the weights' shapes.

    They have the names and shards of a `fully_reshardable` checkpoint.

    Args:
        source: the checkpoint.
        slices: from `read`.

    Raises:
        DataError: a slice is outside the buckets.
    """

    def __init__(self, source: TorchDist, slices: Iterable[BucketSlice]) -> None:
        self.source = source
        self.tensors: dict[str, dcp.TensorStorageMetadata] = {}
        self.parts: dict[tuple[str, tuple[int, ...]], tuple[str, BucketSlice]] = {}
        """The tensor of a bucket and the slice in it, by name and offset of a shard."""
        states = _states(source)
        for one in slices:
            if not one.is_main:
                continue
            for state in states.get(one.bucket, ()):
                self._add(one, state)
        if not self.tensors:
            raise DataError(f"{source.folder / NAME} names no bucket of the checkpoint")

    def _add(self, one: BucketSlice, state: str) -> None:
        stored = f"{one.bucket}.{state}"
        bucket = self.source.tensors[stored]
        if len(bucket.size) != 1 or one.start + one.numel > bucket.size[0]:
            raise DataError(
                f"{self.source.folder / NAME} differs from .metadata: {one.key} is outside"
                f" {stored}; copy the checkpoint again"
            )
        name = f"optimizer.state.{state}.{one.key}"
        if name not in self.tensors:
            properties = dcp.TensorProperties(dtype=bucket.properties.dtype)
            self.tensors[name] = dcp.TensorStorageMetadata(
                properties=properties, size=torch.Size(one.shape), chunks=[]
            )
        tensor = self.tensors[name]
        if tuple(tensor.size) != one.shape or (name, one.offset) in self.parts:
            raise DataError(
                f"{self.source.folder / NAME} is damaged: the shards of {one.key} do not match;"
                " copy the checkpoint again"
            )
        tensor.chunks.append(
            dcp.ChunkStorageMetadata(offsets=torch.Size(one.offset), sizes=torch.Size(one.size))
        )
        self.parts[name, one.offset] = (stored, one)

    def read(
        self,
        name: str,
        offset: tuple[int, ...],
        begin: tuple[int, ...],
        lengths: tuple[int, ...],
    ) -> Tensor:
        """Read a part of a shard.

        Args:
            name: of the tensor.
            offset: of the shard in it.
            begin: of the part in the shard.
            lengths: of the part.

        Raises:
            DataError: a file is missing or damaged.
        """
        stored, one = self.parts[name, offset]
        axis = next((axis for axis, size in enumerate(one.size) if size > 1), 0)
        row = math.prod(one.size[axis + 1 :])
        start = one.start + begin[axis] * row
        flat = self.source.rows(stored, (), start, start + lengths[axis] * row)
        part = flat.view(*one.size[:axis], lengths[axis], *one.size[axis + 1 :])
        for later in range(axis + 1, len(one.size)):
            part = part.narrow(later, begin[later], lengths[later])
        return part

    def common(self) -> dict[Any, Any]:
        """Return the optimizer's state that belongs to no tensor: its parameter groups.

        That of each, by index, where there are several optimizers.

        Raises:
            DataError: it is missing or damaged.
        """
        groups: dict[str | None, list[Any]] = {}
        for match, info in self._group_objects():
            path = self.source.folder / info.relative_path
            own = groups.setdefault(match[1], [])
            for group in _parameter_groups(path, info):
                if group not in own:  # each stage of the pipeline has its own
                    own.append(group)
        if not groups:
            raise DataError(f"{self.source.folder} is incomplete: it has no parameter groups")
        states: dict[Any, Any] = {
            None if index is None else int(index): {
                "optimizer": {"param_groups": own},
                "param_state_sharding_type": FULLY_RESHARDABLE,
            }
            for index, own in groups.items()
        }
        return states.get(None, states)

    def _group_objects(self) -> list[tuple[re.Match[str], Any]]:
        """Return the objects with parameter groups and the matches of their names, in order."""
        objects = [
            (match, info)
            for name, info in self.source.objects.items()
            if (match := _GROUPS.fullmatch(name))
        ]
        return sorted(objects, key=lambda item: (int(item[0][1] or 0), int(item[0][2])))


def groups_of_layout(common: dict[Any, Any], optimizers: Sequence[int]) -> dict[Any, Any]:
    """Return the optimizers' state in `common.pt` for the optimizers of the running layout.

    Expert parallelism has an optimizer for the experts, other layouts have one for all weights.
    The parameter groups of all are equal but for `is_expert_parallel`.

    Args:
        common: the state of one optimizer, or the states of several by index.
        optimizers: indices of the running layout's; empty for one.
    """
    indices = sorted(index for index in common if isinstance(index, int))
    saved = [common[index] for index in indices] or [common]
    if indices == list(optimizers) or not all("optimizer" in one for one in saved):
        return common
    groups = _groups_of_all_weights(saved)
    adapted = saved[0] | {"optimizer": saved[0]["optimizer"] | {"param_groups": groups}}
    if not optimizers:
        return adapted
    return {index: copy.deepcopy(adapted) for index in optimizers}


def _groups_of_all_weights(states: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each parameter group of some optimizers, once for experts and once for the others."""
    saved = [group for state in states for group in state["optimizer"]["param_groups"]]
    groups: list[dict[str, Any]] = []
    for group, is_expert in itertools.product(saved, (False, True)):
        adapted = group | {"is_expert_parallel": is_expert}
        if adapted not in groups:
            groups.append(adapted)
    return groups


def _states(source: TorchDist) -> dict[str, list[str]]:
    """Return the states of the optimizer that each bucket has."""
    states: dict[str, list[str]] = {}
    for name in source.tensors:
        if is_in_buckets(name):
            bucket, _, state = name.rpartition(".")
            states.setdefault(bucket, []).append(state)
    return states


def _parameter_groups(path: Path, info: Any) -> list[dict[str, Any]]:
    """Return the parameter groups that one data-parallel group stored."""
    stored = safe_pickle.read_archive(path, info.offset, info.length)
    value = pickle_values.real(stored, path)
    while type(value) is list and len(value) == 1:  # a list of the ranks' objects
        value = value[0]
    groups = value.get("param_groups") if type(value) is dict else None
    if type(groups) is not list or not all(type(group) is dict for group in groups):
        raise DataError(f"{path} is damaged: it has no parameter groups of the optimizer")
    return groups
