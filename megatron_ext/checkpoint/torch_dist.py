"""Reads and writes Megatron's `torch_dist` checkpoints in slices, in one process.

The format is PyTorch's distributed one. A `.distcp` file is a sequence of torch.save
archives; `.metadata` is a pickle with the location of each part of each tensor. Writing needs no
process group and no complete tensor; the result is that of `dist_checkpointing.save`.
"""

import json
import pickle
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.serialization import get_crc32_options, set_crc32_options

from galen.errors import DataError
from megatron_ext.checkpoint import safe_pickle, tiling
from megatron_ext.checkpoint.stored_tensor import StoredTensor

BACKEND = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
LAYERS = "decoder.layers."
Index = tuple[int, ...]
"""Of a tensor along its leading axes: its layer; layer and expert; () if it exists once."""
COMMON_STATE = "common_state/shard_0_1"
"""Where megatron-core 0.19 stores the state that belongs to no tensor."""
_EXTRA_STATES = "__extra_states.distcp"


@dataclass(frozen=True)
class Entry:
    """A part of a tensor in a file."""

    key: str
    shape: tuple[int, ...]
    """Of the entire tensor, layers stacked along the first axis."""
    dtype: str
    offset: tuple[int, ...]
    size: tuple[int, ...]
    file: str
    start: int
    length: int

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Entry":
        """Return an entry from its JSON fields, which have lists for tuples."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class StoredObject:
    """The location of an object that is no tensor."""

    key: str
    file: str
    start: int
    length: int


class Stream(Protocol):
    """The methods of an open file that `torch.save` requires."""

    def write(self, data: Any) -> int:
        """Append bytes and return their number."""

    def tell(self) -> int:
        """Return the number of bytes so far."""

    def flush(self) -> None:
        """Write buffered bytes."""


def write_entry(
    stream: Stream,
    file: str,
    key: str,
    shape: tuple[int, ...],
    offset: tuple[int, ...],
    tensor: Tensor,
) -> Entry:
    """Append a part of a tensor to an open `.distcp` file."""
    start = stream.tell()
    before = get_crc32_options()
    # twice as fast; no reader of checkpoints checks it, and the manifest has a SHA-256
    set_crc32_options(False)
    try:
        torch.save(tensor, cast(IO[bytes], stream))
    except RuntimeError as error:
        # torch.save hides errors of its file behind one of its own
        if isinstance(error.__context__, DataError):
            raise error.__context__ from None
        raise
    finally:
        set_crc32_options(before)
    return Entry(
        key,
        shape,
        str(tensor.dtype).removeprefix("torch."),
        offset,
        tuple(tensor.shape),
        file,
        start,
        stream.tell() - start,
    )


def finish(
    folder: Path,
    entries: list[Entry],
    common: dict[str, Any],
    extra_states: Sequence[str] = (),
    objects: Sequence[StoredObject] = (),
) -> None:
    """Write `.metadata`, `common.pt` and `metadata.json`.

    They make a folder of `.distcp` files a checkpoint.

    `extra_states` names objects that are stored empty: the FP8 states of Transformer Engine's
    modules, without which a model with such modules is not loaded. `objects` are in the files
    already.
    """
    tensors: dict[str, Any] = {}
    storage: dict[Any, Any] = {}
    for entry in entries:
        if entry.key not in tensors:
            properties = dcp.TensorProperties(dtype=getattr(torch, entry.dtype))
            tensors[entry.key] = dcp.TensorStorageMetadata(
                properties=properties, size=torch.Size(entry.shape), chunks=[]
            )
        chunk = dcp.ChunkStorageMetadata(
            offsets=torch.Size(entry.offset), sizes=torch.Size(entry.size)
        )
        tensors[entry.key].chunks.append(chunk)
        storage[dcp.MetadataIndex(entry.key, torch.Size(entry.offset))] = _StorageInfo(
            entry.file, entry.start, entry.length
        )
    for stored in objects:
        tensors[stored.key] = dcp.BytesStorageMetadata()
        storage[dcp.MetadataIndex(stored.key)] = _StorageInfo(
            stored.file, stored.start, stored.length
        )
    if extra_states:
        with (folder / _EXTRA_STATES).open("wb") as file:
            # a list of the ranks' objects, as Megatron writes it
            torch.save([torch.empty(0, dtype=torch.uint8)], file)
            length = file.tell()
        for name in extra_states:
            tensors[name] = dcp.BytesStorageMetadata()
            storage[dcp.MetadataIndex(name)] = _StorageInfo(_EXTRA_STATES, 0, length)
    with (folder / ".metadata").open("wb") as file:
        pickle.dump(
            dcp.Metadata(state_dict_metadata=tensors, planner_data=None, storage_data=storage), file
        )
    torch.save(common, folder / "common.pt")  # megatron-core 0.16 requires it, 0.19 reads it
    (folder / "metadata.json").write_text(json.dumps(BACKEND), encoding="utf-8")


class TorchDist:
    """A checkpoint folder: its tensors, and any rows of them.

    It needs no process group and runs no code of the checkpoint.

    `prefix` precedes the names in the files of programs that save the wrapped model (NeMo:
    `module.`); it is left out here. `metadata` is that of the folder if it has been read already.

    Raises:
        DataError: the folder is no complete torch_dist checkpoint, or its pickles hold values that
            no checkpoint has.
    """

    def __init__(
        self, folder: str | Path, prefix: str = "", metadata: dcp.Metadata | None = None
    ) -> None:
        self.folder = Path(folder)
        if metadata is None:
            metadata = safe_pickle.read_metadata(self.folder)
        self._metadata = metadata
        self._parts: dict[str, list[tuple[tuple[int, ...], Any]]] = {}
        self._by_index: dict[tuple[str, Index], list[tuple[tuple[int, ...], Any]]] = {}
        self._archives: dict[tuple[Path, int], Any] = {}
        self._sizes: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = {}
        self._is_tiled: dict[str, bool] = {}
        self.tensors: dict[str, Any] = {}
        self.objects: dict[str, Any] = {}
        for stored, value in metadata.state_dict_metadata.items():
            key = stored.removeprefix(prefix)
            if isinstance(value, dcp.TensorStorageMetadata):
                self.tensors[key] = value
                for chunk in value.chunks:
                    self._sizes[key, tuple(chunk.offsets)] = tuple(chunk.sizes)
        for index, info in metadata.storage_data.items():
            key = index.fqn.removeprefix(prefix)
            if key in self.tensors:
                self._parts.setdefault(key, []).append((tuple(index.offset or ()), info))
            else:
                self.objects[key] = info

    def key(self, name: str, index: Index) -> str:
        """Return the stored name of a tensor.

        Layers are stacked under one name, or numbered if they differ.
        """
        return self._locate(name, index)[0]

    def holds(self, name: str, index: Index) -> bool:
        """Return whether the checkpoint has the tensor."""
        return self.key(name, index) in self.tensors

    def shape(self, name: str, index: Index) -> tuple[int, ...]:
        """Return the size of a tensor, of one layer and expert."""
        key, leading = self._locate(name, index)
        return tuple(self.tensors[key].size)[len(leading) :]

    def dtype(self, name: str, index: Index) -> torch.dtype:
        """Return the precision of a tensor."""
        return self.tensors[self.key(name, index)].properties.dtype

    def location(self, name: str, index: Index) -> tuple[str, int]:
        """Return the first file with rows of a tensor, of one layer and expert, and the offset."""
        key, leading = self._locate(name, index)
        parts = self._parts_of(key, leading)
        return min(((info.relative_path, info.offset) for _, info in parts), default=("", 0))

    def rows(self, name: str, index: Index, start: int, stop: int) -> Tensor:
        """Read some rows of a tensor, of one layer and expert, from the parts it was saved in.

        Raises:
            DataError: the parts do not cover it, or a file is missing or damaged.
        """
        target = torch.empty(
            (stop - start, *self.shape(name, index)[1:]), dtype=self.dtype(name, index)
        )
        self.read_into(target, name, index, start)
        return target

    def read_into(self, target: Tensor, name: str, index: Index, start: int) -> None:
        """Fill the contiguous `target` with rows of a tensor, of one layer and expert.

        `start` is the first row.

        Raises:
            DataError: the parts do not cover it, or a file is missing or damaged.
        """
        key, leading = self._locate(name, index)
        if key not in self._is_tiled:
            self._is_tiled[key] = tiling.is_tiled(self.tensors[key])
        if not self._is_tiled[key]:
            raise DataError(
                f"{self.folder} is incomplete: the parts of {key} in .metadata do not cover it"
            )
        stop = start + len(target)
        filled = 0
        axes = len(leading)
        for offset, info in self._parts_of(key, leading):
            size = self._sizes[key, offset]
            begins = offset[axes:]
            extent = size[axes:]
            low = max(start, begins[0])
            high = min(stop, begins[0] + extent[0])
            if low >= high:
                continue
            first = tuple(at - begin for at, begin in zip(leading, offset, strict=False))
            stored = self._stored(info, key, size, first)
            slices = [slice(low - start, high - start)]
            slices += [
                slice(begin, begin + length)
                for begin, length in zip(begins[1:], extent[1:], strict=True)
            ]
            part = target[tuple(slices)]
            if part.is_contiguous():
                stored.read_into(part, low - begins[0])
            else:
                part.copy_(stored.rows(low - begins[0], high - begins[0]))
            filled += part.numel()
        if filled != target.numel():
            raise DataError(
                f"{self.folder} is incomplete: of {key} rows {start} to {stop} it holds {filled:,}"
                f" of {target.numel():,} numbers"
            )

    def _locate(self, name: str, index: Index) -> tuple[str, Index]:
        """Return the stored name of a tensor and its indices along the leading axes there."""
        if index and name not in self.tensors:
            return name.replace(LAYERS, f"{LAYERS}{index[0]}.", 1), index[1:]
        return name, index

    def _parts_of(self, key: str, leading: Index) -> list[tuple[tuple[int, ...], Any]]:
        """Return the parts of a tensor that hold these indices along its leading axes."""
        if not leading:
            return self._parts.get(key, [])
        if (key, leading) not in self._by_index:
            axis = len(leading) - 1
            self._by_index[key, leading] = [
                (offset, info)
                for offset, info in self._parts_of(key, leading[:-1])
                if 0 <= leading[axis] - offset[axis] < self._sizes[key, offset][axis]
            ]
        return self._by_index[key, leading]

    def _stored(self, info: Any, key: str, size: tuple[int, ...], leading: Index) -> StoredTensor:
        """Return the location of a part, or of what it holds at these indices of leading axes."""
        path = self.folder / info.relative_path
        if not path.is_file():
            raise DataError(f"{self.folder} is incomplete: {info.relative_path} is missing")
        stored = self._archives.get((path, info.offset))
        if stored is None:
            stored = self._archives[path, info.offset] = safe_pickle.read_archive(
                path, info.offset, info.length
            )
        dtype = self.tensors[key].properties.dtype
        if not isinstance(stored, StoredTensor) or stored.shape != size or stored.dtype != dtype:
            raise DataError(
                f"{path} differs from .metadata: {key} should have {list(size)} of {dtype}"
            )
        return stored.at(leading)

    def file_ends(self) -> Iterator[tuple[str, int]]:
        """Yield the file and the last byte of everything that is stored."""
        stored = [info for parts in self._parts.values() for _, info in parts]
        for info in (*stored, *self.objects.values()):
            yield info.relative_path, info.offset + info.length

    def common(self) -> dict[str, Any]:
        """Return the state that belongs to no tensor (arguments, iteration).

        It is in `common.pt` or, since 0.19, in the `.distcp` files.
        """
        return common_state(self.folder, self._metadata)


def common_state(folder: Path, metadata: dcp.Metadata) -> dict[str, Any]:
    """Return the state that belongs to no tensor, read without running code.

    Raises:
        DataError: it is damaged, or holds values that no checkpoint has.
    """
    path = folder / "common.pt"
    if path.is_file():
        state = safe_pickle.read_archive(path)
    else:
        info = metadata.storage_data.get(dcp.MetadataIndex(COMMON_STATE))
        if info is None:
            return {}
        path = folder / info.relative_path
        state = safe_pickle.read_archive(path, info.offset, info.length)
        state = state[0] if type(state) is list and len(state) == 1 else state
    if type(state) is not dict:
        raise DataError(
            f"{path} is damaged, or not a checkpoint's: it holds a {type(state).__name__}"
            " instead of a dict"
        )
    return state


def megatron_arguments(**values: Any) -> dict[str, Any]:
    """Return the common state that Megatron-LM expects: arguments, iteration, layout version."""
    return {"args": Namespace(**values), **common_without_arguments()}


def common_without_arguments() -> dict[str, Any]:
    """Return the common state of a model that Megatron-LM cannot express."""
    return {
        "checkpoint_version": 3.0,
        "iteration": 0,
        "num_floating_point_operations_so_far": 0,
    }
