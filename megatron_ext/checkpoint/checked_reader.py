"""Gives PyTorch and Megatron the checkpoint content that `safe_pickle` read.

They unpickle none of its files themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import torch as megatron_torch
from torch import Tensor
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from galen.errors import DataError
from megatron_ext.checkpoint import pickle_values, safe_pickle, tiling
from megatron_ext.checkpoint.optimizer_buckets import ModelSpace
from megatron_ext.checkpoint.stored_tensor import StoredTensor


class CheckedReader(FileSystemReader):
    """PyTorch's reader with its two unpicklers replaced.

    Args:
        folder: of the checkpoint.
        metadata: from `safe_pickle.check_checkpoint`.
        model_space: the optimizer's state in buckets, to be read like the weights; None to read all
            tensors as they are stored.
    """

    def __init__(
        self, folder: Path, metadata: Metadata, model_space: ModelSpace | None = None
    ) -> None:
        super().__init__(folder)
        self._folder = folder
        self._model_space = model_space
        if model_space is not None:
            tensors = {**metadata.state_dict_metadata, **model_space.tensors}
            metadata = Metadata(state_dict_metadata=tensors, storage_data=metadata.storage_data)
        self._metadata = metadata
        self._sizes: dict[str, dict[tuple[int, ...], tuple[int, ...]]] = {}
        metadata.storage_meta = StorageMeta(load_id=self.load_id)

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Return the metadata that was checked."""
        return self._metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read the items of a plan: tensors into their targets, objects as a pickle of ours."""
        for item in plan.items:
            if self._is_in_model_space(item.storage_index):
                target = planner.resolve_tensor(item).detach()
                target.copy_(self._part_in_model_space(item))
                planner.commit_tensor(item, target)
                continue
            stored, name = self._stored(item)
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, pickle_values.packed(stored, name))
            else:
                target = planner.resolve_tensor(item).detach()
                target.copy_(self._part(item, stored, name, target))
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _is_in_model_space(self, index: MetadataIndex) -> bool:
        return self._model_space is not None and index.fqn in self._model_space.tensors

    def _part_in_model_space(self, item: ReadItem) -> Tensor:
        """Return the numbers of a tensor that an item requests, from the optimizer's buckets."""
        assert self._model_space is not None
        index = item.storage_index
        self._size_and_dtype(index)  # it must be complete
        return self._model_space.read(
            index.fqn, tuple(index.offset or ()), tuple(item.storage_offsets), tuple(item.lengths)
        )

    def _stored(self, item: ReadItem) -> tuple[Any, str]:
        """Return the stored value of an item, and a name for messages."""
        index: MetadataIndex = item.storage_index
        info = self._metadata.storage_data.get(index)
        if info is None:
            raise DataError(f"{self._folder / '.metadata'} has no location of {index.fqn}")
        path = self._folder / info.relative_path
        if not path.is_file():
            raise DataError(f"{self._folder} is incomplete: {info.relative_path} is missing")
        return safe_pickle.read_archive(path, info.offset, info.length), f"{index.fqn} in {path}"

    def _part(self, item: ReadItem, stored: Any, name: str, target: Tensor) -> Tensor:
        """Return the numbers of a tensor that an item requests."""
        ends = [
            offset + length
            for offset, length in zip(item.storage_offsets, item.lengths, strict=True)
        ]
        size, dtype = self._size_and_dtype(item.storage_index)
        is_tensor = type(stored) is StoredTensor and stored.shape == size and stored.dtype == dtype
        if not is_tensor or any(
            end > length for end, length in zip(ends, stored.shape, strict=True)
        ):
            raise DataError(f"{name} is not the tensor that .metadata describes")
        part = narrow_tensor_by_index(stored.read(), item.storage_offsets, item.lengths)
        if part.shape != target.shape:
            raise DataError(
                f"{name} has the size {list(part.shape)} instead of {list(target.shape)}"
            )
        return part

    def _size_and_dtype(self, index: MetadataIndex) -> tuple[tuple[int, ...] | None, torch.dtype]:
        """Return the size and type of a part in `.metadata`."""
        tensor: Any = self._metadata.state_dict_metadata[index.fqn]
        if index.fqn not in self._sizes:
            if not tiling.is_tiled(tensor):
                raise DataError(
                    f"{self._folder} is incomplete: the parts of {index.fqn} in .metadata do not"
                    " cover it"
                )
            self._sizes[index.fqn] = {
                tuple(chunk.offsets): tuple(chunk.sizes) for chunk in tensor.chunks
            }
        return self._sizes[index.fqn].get(tuple(index.offset or ())), tensor.properties.dtype


@contextmanager
def used_by_megatron(reader: CheckedReader) -> Iterator[None]:
    """Make Megatron's loading strategy use this reader instead of one that unpickles files."""
    before = megatron_torch._get_filesystem_reader
    megatron_torch._get_filesystem_reader = lambda *_, **__: reader
    try:
        yield
    finally:
        megatron_torch._get_filesystem_reader = before
