"""Rewrites an iteration whose optimizer state is in buckets, a slice at a time."""

import dataclasses
import itertools
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints_convert.conversion.weight_tasks import CHUNK_BYTES
from checkpoints_convert.hf.folder import copy_companions, seal_companions
from checkpoints_convert.resumable_io.input_hashes import InputHashes
from checkpoints_convert.resumable_io.output_file import OutputFile
from checkpoints_convert.resumable_io.prefetch import Prefetcher, TensorSlice
from checkpoints_convert.resumable_io.resumable_steps import Step, run_steps, write_manifest
from galen import manifest
from galen.errors import DataError, OutputConflictError
from galen.run_folder import finished, resume, unknown_output
from galen.run_identity import Identity, stat_record
from megatron_ext.checkpoint import (
    checkpoint_folder,
    optimizer_buckets,
    pickle_values,
    safe_pickle,
    tiling,
    torch_dist,
)
from megatron_ext.checkpoint.optimizer_buckets import ModelSpace
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import read_architecture

logger = logging.getLogger(__name__)

STAGE = "reshard"
FILE_BYTES = 4 * 2**30
"""Of the tensors in a file."""
_NOT_COPIED = {".metadata", "metadata.json", "common.pt", manifest.NAME, optimizer_buckets.NAME}


@dataclass(frozen=True)
class Reshard:
    """An iteration to convert."""

    checkpoint: Path
    """Folder of all iterations."""
    folder: Path
    """Of the iteration."""
    output: Path
    """Checkpoint folder to write."""

    @property
    def iteration(self) -> int:
        """Number of the iteration."""
        return int(self.folder.name.removeprefix("iter_"))


@dataclass(frozen=True)
class Shard:
    """Some rows of a tensor to write."""

    key: str
    shape: tuple[int, ...]
    """Of the entire tensor."""
    offset: tuple[int, ...]
    size: tuple[int, ...]
    dtype: torch.dtype
    """To write."""
    bucket: str | None
    """The tensor of a bucket that holds it, None for a tensor of this name."""
    start: int
    """Index of its first number in the bucket."""

    @property
    def nbytes(self) -> int:
        """Bytes to write."""
        return math.prod(self.size) * self.dtype.itemsize

    def chunks(self) -> Iterator["Shard"]:
        """Yield its parts of at most CHUNK_BYTES, each contiguous in the shard."""
        axis = next((axis for axis, size in enumerate(self.size) if size > 1), 0)
        row = math.prod(self.size[axis + 1 :])
        rows = max(CHUNK_BYTES // max(row * self.dtype.itemsize, 1), 1)
        for begin in range(0, self.size[axis], rows):
            count = min(rows, self.size[axis] - begin)
            offset = (*self.offset[:axis], self.offset[axis] + begin, *self.offset[axis + 1 :])
            size = (*self.size[:axis], count, *self.size[axis + 1 :])
            yield dataclasses.replace(
                self, offset=offset, size=size, start=self.start + begin * row
            )


@dataclass(frozen=True)
class WriteShards(Step):
    """Writes some shards into one `.distcp` file."""

    source: TorchDist
    shards: tuple[Shard, ...]

    def run(self, output: OutputFile, reader: Prefetcher) -> list[dict[str, Any]]:
        """Write the file and return its entries."""
        chunks = [chunk for shard in self.shards for chunk in shard.chunks()]
        tensors = reader.read(
            TensorSlice(chunk.size, chunk.dtype, _Fill(self.source, chunk)) for chunk in chunks
        )
        entries = [
            torch_dist.write_entry(output, self.file, chunk.key, chunk.shape, chunk.offset, tensor)
            for chunk, tensor in zip(chunks, tensors, strict=True)
        ]
        return [dataclasses.asdict(entry) for entry in entries]


@dataclass(frozen=True)
class _Fill:
    """Reads a chunk."""

    source: TorchDist
    chunk: Shard

    def __call__(self, target: Tensor) -> None:
        chunk = self.chunk
        if chunk.bucket is not None:
            self.source.read_into(target.view(-1), chunk.bucket, (), chunk.start)
        elif len(chunk.size) > 2 and torch_dist.LAYERS in chunk.key:
            stack = _stacked_axes(chunk.size)
            inner = target.view(chunk.size[stack:])
            self.source.read_into(inner, chunk.key, chunk.offset[:stack], chunk.offset[stack])
        else:
            self.source.read_into(target, chunk.key, (), chunk.offset[0])


def _stacked_axes(shape: tuple[int, ...]) -> int:
    """Return the axes over which layers, and the experts of a layer, are stacked."""
    return max(len(shape) - 2, 1)


def input_files(folder: Path) -> list[Path]:
    """Return the files that a conversion of an iteration reads, the large ones in their order."""
    small = [folder / ".metadata", folder / optimizer_buckets.NAME]
    existing = [path for path in small if path.is_file()]
    return [*existing, *checkpoint_folder.weight_files(folder)]


def convert(job: Reshard, inputs: InputHashes, workers: int = 1) -> None:
    """Write the iteration as `fully_reshardable` into the output folder.

    Raises:
        DataError: it cannot be converted.
        OutputConflictError: the output holds another one.
    """
    target = checkpoint_folder.iteration_folder(job.output, job.iteration)
    identity = Identity({"iteration": job.iteration}, [stat_record(path) for path in inputs.paths])
    if _is_complete(job.output, target, identity):
        return
    source = TorchDist(job.folder)
    slices = optimizer_buckets.read(job.folder)
    if slices is None:
        raise _not_in_buckets(source)
    model_space = ModelSpace(source, slices)
    folder = checkpoint_folder.partial_folder(job.output, job.iteration)
    resume(folder, identity)
    results, hashes = run_steps("reshard", folder, _steps(source, model_space), workers, inputs)
    entries = [torch_dist.Entry.from_json(entry) for part in results for entry in part]
    objects = _write_objects(folder, source)
    common = pickle_values.real(source.common(), job.folder)
    torch_dist.finish(folder, entries, common | {"optimizer": model_space.common()}, (), objects)
    _check_complete(folder)
    for path in sorted(job.folder.iterdir()):
        if path.suffix != ".distcp" and path.name not in _NOT_COPIED and path.is_file():
            shutil.copyfile(path, folder / path.name)
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    architecture = read_architecture(folder)
    config = dict(identity.config)
    write_manifest(folder, STAGE, inputs.paths, hashes, config, files, architecture)
    companions = job.checkpoint / checkpoint_folder.HF
    if companions.is_dir():
        copy_companions(companions, job.output / checkpoint_folder.HF)
        seal_companions(job.output / checkpoint_folder.HF)
    checkpoint_folder.publish(job.output, job.iteration)
    print(f"{target}: {architecture.parameters:,} parameters, optimizer fully_reshardable")


def _is_complete(output: Path, target: Path, identity: Identity) -> bool:
    """Return whether the output was made from these inputs, and say so.

    Raises:
        OutputConflictError: it holds something else.
    """
    if others := checkpoint_folder.foreign(output):
        raise OutputConflictError(
            f"{output} is not a Megatron checkpoint, it holds {', '.join(others[:3])}; choose"
            " another --output"
        )
    if not target.exists():
        return False
    if finished(output, target / manifest.NAME, STAGE, identity) is None:
        raise unknown_output(target)
    logger.info(f"{output} is already complete")
    return True


def _not_in_buckets(source: TorchDist) -> DataError:
    """Return why a checkpoint without a file of slices cannot be converted."""
    if not any(map(optimizer_buckets.is_in_buckets, source.tensors)):
        return DataError(
            f"{source.folder} has no optimizer state in dp_reshardable format; any layout can load"
            " it as it is"
        )
    return DataError(
        f"{source.folder} has its optimizer state in dp_reshardable format, but no"
        f" {optimizer_buckets.NAME}: another program wrote it, or the file was lost. Load it with"
        " that program under the layout that wrote it, and save it as fully_reshardable; `galen"
        " export` can read its weights"
    )


def _steps(source: TorchDist, model_space: ModelSpace) -> list[WriteShards]:
    """Divide the shards among files, in the order in which the input's files hold them."""
    shards = [*_weights(source), *_optimizer(model_space)]
    files: list[list[Shard]] = [[]]
    size = 0
    for shard in shards:
        if size and size + shard.nbytes > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(shard)
        size += shard.nbytes
    return [
        WriteShards(
            f"__{number}_0.distcp", sum(shard.nbytes for shard in part), source, tuple(part)
        )
        for number, part in enumerate(files)
    ]


def _weights(source: TorchDist) -> Iterator[Shard]:
    """Yield the tensors that are in no bucket; of stacked layers and experts, each of them."""
    names = [name for name in source.tensors if not optimizer_buckets.is_in_buckets(name)]
    for name in sorted(names, key=lambda name: source.location(name, ())):
        tensor = source.tensors[name]
        shape = tuple(tensor.size)
        dtype = tensor.properties.dtype
        if len(shape) < 3 or torch_dist.LAYERS not in name:
            yield Shard(name, shape, (0,) * len(shape), shape, dtype, None, 0)
            continue
        stack = _stacked_axes(shape)
        for index in itertools.product(*map(range, shape[:stack])):
            offset = (*index, *(0 for _ in shape[stack:]))
            size = (*(1 for _ in index), *shape[stack:])
            yield Shard(name, shape, offset, size, dtype, None, 0)


def _optimizer(model_space: ModelSpace) -> Iterator[Shard]:
    """Yield the shards of the optimizer's state in the order of the buckets."""
    parts = sorted(
        model_space.parts.items(), key=lambda item: (item[1][1].bucket, item[1][1].start, item[0])
    )
    for (name, offset), (bucket, one) in parts:
        # the core writes this format in float32
        yield Shard(name, one.shape, offset, one.size, torch.float32, bucket, one.start)


def _write_objects(folder: Path, source: TorchDist) -> Sequence[torch_dist.StoredObject]:
    """Write the objects of a checkpoint but the buckets': random states, FP8 history."""
    file = folder / "__objects.distcp"
    objects = []
    with file.open("wb") as stream:
        for name, info in sorted(source.objects.items()):
            if optimizer_buckets.is_in_buckets(name) or name.startswith(torch_dist.COMMON_STATE):
                continue
            path = source.folder / info.relative_path
            stored = safe_pickle.read_archive(path, info.offset, info.length)
            data = pickle_values.packed(stored, f"{name} in {path}").getvalue()
            objects.append(torch_dist.StoredObject(name, file.name, stream.tell(), len(data)))
            stream.write(data)
    return objects


def _check_complete(folder: Path) -> None:
    """Check that the parts of each tensor that was written cover it.

    Raises:
        DataError: some numbers are missing, since the input lacks them.
    """
    for name, tensor in TorchDist(folder).tensors.items():
        if not tiling.is_tiled(tensor):
            raise DataError(
                f"the optimizer state is incomplete: {optimizer_buckets.NAME} does not name all"
                f" parts of {name}; copy the checkpoint again"
            )
