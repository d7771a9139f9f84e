"""Gives a converted checkpoint an optimizer state in buckets, as a run saves it.

It is that of two tensor-parallel ranks, each with one bucket; a weight of one axis is in both, as
the norms of a model are.
"""

import json
import math
import shutil

import torch

from galen import manifest
from megatron_ext.checkpoint import optimizer_buckets, torch_dist
from megatron_ext.checkpoint.optimizer_buckets import BucketSlice
from megatron_ext.checkpoint.torch_dist import StoredObject, TorchDist

STATES = ("param", "exp_avg", "exp_avg_sq")
GAP = 7
"""Numbers between two weights that belong to none."""


def with_optimizer(checkpoint, target):
    """Copy a checkpoint of iteration 0 to iteration 5 of `target`, with an optimizer's state.

    Returns the expected tensors of the state by name.
    """
    shutil.copytree(checkpoint, target)
    folder = target / "iter_0000005"
    (target / "iter_0000000").rename(folder)
    (target / "latest_checkpointed_iteration.txt").write_text("5")
    source = TorchDist(folder)
    random = torch.Generator().manual_seed(5)
    shapes = {name: tuple(tensor.size) for name, tensor in source.tensors.items()}
    expected = {
        f"optimizer.state.{state}.{name}": torch.randn(shape, generator=random)
        for state in STATES
        for name, shape in shapes.items()
    }
    slices = [one for rank in range(2) for one in _slices(rank, shapes)]
    weights = {name: source.rows(name, (), 0, shape[0]) for name, shape in shapes.items()}
    _write(folder, weights, expected, slices)
    optimizer_buckets.write(folder, slices)
    (folder / "training_state.json").write_text(json.dumps({"layout": [2, 1, 1], "progress": {}}))
    seal(folder)
    return expected


def seal(folder):
    """Write the manifest of an iteration anew, as after a change of a file."""
    files = [path for path in sorted(folder.iterdir()) if path.name != manifest.NAME]
    manifest.write(
        folder / manifest.NAME,
        stage="checkpoint",
        inputs=[],
        config={},
        outputs=files,
        counts={"iteration": 5},
    )


def _slices(rank, shapes):
    """Yield the slices of a rank: each layer of a weight, its half of the columns."""
    start = 0
    for name, shape in shapes.items():
        stacked = torch_dist.LAYERS in name
        for layer in range(shape[0] if stacked else 1):
            size = [1, *shape[1:]] if stacked else list(shape)
            offset = [layer if stacked else 0, *(0 for _ in shape[1:])]
            is_split = len(shape) > (2 if stacked else 1)
            if is_split:
                size[-1] //= 2
                offset[-1] = rank * size[-1]
            yield BucketSlice(
                f"optimizer.distributed.dp_group_idx_{rank}.gbuf_idx_0.dtype_d.bucket_idx_0",
                start,
                name,
                tuple(shape),
                tuple(offset),
                tuple(size),
                is_split or rank == 0,
            )
            start += math.prod(size) + GAP


def _write(folder, weights, expected, slices):
    """Write the tensors anew, each bucket in two parts."""
    for path in folder.glob("*.distcp"):
        path.unlink()
    entries, objects = [], []
    with (folder / "__0_0.distcp").open("wb") as file:
        for name, tensor in weights.items():
            origin = (0,) * tensor.dim()
            entries.append(
                torch_dist.write_entry(file, "__0_0.distcp", name, tensor.shape, origin, tensor)
            )
        objects.append(_write_object(file, "random_states/shard_0_1", [{"seed": 3}]))
        for rank in range(2):
            groups = [{"params": [], "lr": 0.5, "wd_mult": float(rank), "betas": (0.9, 0.95)}]
            name = f"optimizer.distributed.dp_group_idx_{rank}.optimizer/shard_0_1"
            objects.append(_write_object(file, name, [{"param_groups": groups}]))
    for rank in range(2):
        own = [one for one in slices if f"dp_group_idx_{rank}." in one.bucket]
        numel = max(one.start + one.numel for one in own)
        half = numel // 2
        for part, (begin, end) in enumerate(((0, half), (half, numel))):
            file_name = f"__{rank}_{part + 1}.distcp"
            with (folder / file_name).open("wb") as file:
                for state in STATES:
                    bucket = torch.full((numel,), math.nan)
                    for one in own:
                        values = expected[f"optimizer.state.{state}.{one.key}"]
                        for axis, (offset, size) in enumerate(
                            zip(one.offset, one.size, strict=True)
                        ):
                            values = values.narrow(axis, offset, size)
                        bucket[one.start : one.start + one.numel] = values.reshape(-1)
                    key = f"{own[0].bucket}.{state}"
                    entries.append(
                        torch_dist.write_entry(
                            file, file_name, key, (numel,), (begin,), bucket[begin:end].clone()
                        )
                    )
    common = {"optimizer": {"param_state_sharding_type": "dp_reshardable"}, "iteration": 5}
    torch_dist.finish(folder, entries, common, (), objects)


def _write_object(file, name, value):
    start = file.tell()
    torch.save(value, file)
    return StoredObject(name, "__0_0.distcp", start, file.tell() - start)
