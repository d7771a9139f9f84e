"""Finds the shards of the weights in the buckets of Megatron's distributed optimizer."""

from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import (
    ShardedTensor,
    ShardedTensorFactory,
    is_main_replica,
)
from megatron.core.dist_checkpointing.utils import extract_sharded_tensors_and_factories
from megatron.core.optimizer import MegatronOptimizer

from megatron_ext.checkpoint.optimizer_buckets import PREFIX, BucketSlice, chain_prefix


def find(optimizer: MegatronOptimizer, weights: dict[str, Any]) -> list[BucketSlice] | None:
    """Return the slices of all data-parallel groups, in order (collective).

    None if the optimizer cannot be saved in buckets: a process holds no weight of one of them, as
    in tiny models.

    Args:
        optimizer: of this process.
        weights: its sharded weights.
    """
    chained = getattr(optimizer, "chained_optimizers", [optimizer])
    own: list[BucketSlice] = []
    for index, one in enumerate(chained):
        own += _own_slices(one, weights, chain_prefix(index, len(chained)))
    is_possible = not any(_has_empty_bucket(one) for one in chained)
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, (own, is_possible))
    if not all(possible for _, possible in gathered):
        return None
    return sorted(one for slices, _ in gathered for one in slices)


def _has_empty_bucket(optimizer: Any) -> bool:
    """Return whether this process holds no weight of a bucket, for which the core has no shard."""
    return any(
        not bucket["param_map"]
        for ranges in optimizer.gbuf_ranges
        for buckets in ranges.values()
        for bucket in buckets
    )


def _own_slices(optimizer: Any, weights: dict[str, Any], prefix: str) -> Iterator[BucketSlice]:
    """Yield the slices of a data-parallel group, on its first process.

    `prefix` precedes the names of the buckets.
    """
    if optimizer.data_parallel_group.rank() or optimizer.distributed_optimizer_instance_id:
        return
    sharded, _ = extract_sharded_tensors_and_factories(weights)
    by_weight = {base.data: base for base in nested_values(sharded)}
    group = optimizer.data_parallel_group_idx
    for buffer_index, ranges in enumerate(optimizer.gbuf_ranges):
        buffer = optimizer.buffers[buffer_index]
        for dtype in ranges:
            name = f"{prefix}{PREFIX}dp_group_idx_{group}.gbuf_idx_{buffer_index}.dtype_{dtype}"
            for weight, (start, _, bucket_id) in buffer.param_index_map.items():
                bucket = f"{name}.bucket_idx_{bucket_id}"
                first = start - buffer.buckets[bucket_id].offset
                yield from _slices_of_weight(by_weight[weight], bucket, first)


def _slices_of_weight(
    base: ShardedTensor | ShardedTensorFactory, bucket: str, first: int
) -> Iterator[BucketSlice]:
    """Yield the slices of a process's part of a weight: one, or two of a gated MLP."""
    shards: list[Any] = [base]
    if isinstance(base, ShardedTensorFactory):
        stand_in = torch.empty(base.data.shape, dtype=torch.float32, device="meta")
        built = base.build_fn(base.key, stand_in, base.replica_id, base.flattened_range)
        shards = list(nested_values(built)) if isinstance(built, dict) else list(built)
    for shard in shards:
        begin = 0
        if shard is not base:
            assert shard.data.is_contiguous(), "the shards of a weight are not rows of it"
            begin = shard.data.storage_offset()
        ones = (1,) * shard.prepend_axis_num
        yield BucketSlice(
            bucket=bucket,
            start=first + begin,
            key=shard.key,
            shape=tuple(shard.global_shape),
            offset=tuple(shard.global_offset),
            size=(*ones, *shard.local_shape),
            is_main=is_main_replica(shard.replica_id),
        )
