"""PyTorch's Metadata, rebuilt from a `.metadata` file, with every field checked."""

import re
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo

from galen.errors import DataError
from megatron_ext.checkpoint import tiling
from megatron_ext.checkpoint.pickle_constructors import check_sizes, need
from megatron_ext.checkpoint.pickle_names import NAMES
from megatron_ext.checkpoint.pickle_stand_ins import Inert, Known

_DCP = "torch.distributed.checkpoint"
_TENSOR = NAMES[f"{_DCP}.metadata", "TensorStorageMetadata"]
_BYTES = NAMES[f"{_DCP}.metadata", "BytesStorageMetadata"]
_CHUNK = NAMES[f"{_DCP}.metadata", "ChunkStorageMetadata"]
_PROPERTIES = NAMES[f"{_DCP}.metadata", "TensorProperties"]
_STORAGE_INFO: Known = NAMES[f"{_DCP}.filesystem", "_StorageInfo"]
_METADATA = (
    NAMES[f"{_DCP}.metadata", "Metadata"],
    # the same fields and one more
    NAMES["megatron.core.dist_checkpointing.strategies.torch", "MCoreMetadata"],
)
_MAX_PARTS = 20_000_000
_PLAIN_NAME = re.compile(r"[^/\\\0]+")


def rebuild(record: Any, source: object) -> dcp.Metadata:
    """Return the metadata of a checkpoint that reading needs, without its writer's other fields.

    Raises:
        DataError: it is not a distributed checkpoint's, or contradicts itself.
    """
    try:
        need(
            type(record) is Inert and record.known in _METADATA,
            "it is not a distributed checkpoint's",
        )
        fields = _fields(record)
        tensors = _tensors(fields.get("state_dict_metadata"))
        return dcp.Metadata(
            state_dict_metadata=tensors,
            storage_data=_storage_data(fields.get("storage_data"), tensors),
        )
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{source} is damaged, or not a checkpoint's: {error}") from None


def _fields(record: Inert) -> dict[str, Any]:
    need(type(record.state) is dict, f"{record.known.name} without its fields")
    return record.state


def _record(value: Any, known: Known) -> dict[str, Any]:
    need(
        type(value) is Inert and value.known is known,
        f"something else instead of {known.name}",
    )
    return _fields(value)


def _tensors(stored: Any) -> dict[str, Any]:
    need(type(stored) is dict, "no names of tensors")
    tensors: dict[str, Any] = {}
    properties: dict[int, dcp.TensorProperties] = {}
    parts = 0
    for name, value in stored.items():
        need(type(name) is str, "a tensor without a name")
        if type(value) is Inert and value.known is _BYTES:
            need(not value.state, f"the object {name[:200]!r} with the fields of a tensor")
            tensors[name] = dcp.BytesStorageMetadata()
            continue
        fields = _record(value, _TENSOR)
        size: Any = fields.get("size")
        chunks: Any = fields.get("chunks")
        check_sizes(size)
        need(type(chunks) is list, "a tensor without parts")
        parts += len(chunks)
        need(parts <= _MAX_PARTS, "more parts of tensors than any checkpoint has")
        tensor_properties = fields.get("properties")
        if id(tensor_properties) not in properties:
            properties[id(tensor_properties)] = _properties(tensor_properties)
        # few bytes of a pickle could refer to one part thousands of times
        need(len(set(map(id, chunks))) == len(chunks), f"a part of {name[:200]!r} twice")
        parts_of_tensor = [_chunk(chunk, size, name) for chunk in chunks]
        tensors[name] = dcp.TensorStorageMetadata(
            properties=properties[id(tensor_properties)],
            size=torch.Size(size),
            chunks=parts_of_tensor,
        )
        need(not tiling.overlaps(tensors[name]), f"parts of {name[:200]!r} that overlap")
    return tensors


def _properties(value: Any) -> dcp.TensorProperties:
    need(
        type(value) is Inert and value.known is _PROPERTIES and type(value.state) is tuple,
        "a tensor without its type",
    )
    dtype: Any = value.state[0] if value.state else None
    need(type(dtype) is torch.dtype, "a tensor without its type")
    return dcp.TensorProperties(dtype=dtype)


def _chunk(value: Any, tensor_size: tuple[int, ...], name: str) -> dcp.ChunkStorageMetadata:
    fields = _record(value, _CHUNK)
    offsets: Any = fields.get("offsets")
    sizes: Any = fields.get("sizes")
    check_sizes(offsets)
    check_sizes(sizes)
    fits = len(offsets) == len(sizes) == len(tensor_size) and all(
        offset + size <= length
        for offset, size, length in zip(offsets, sizes, tensor_size, strict=True)
    )
    need(fits, f"a part of {name[:200]!r} outside of it")
    return dcp.ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes))


def _storage_data(stored: Any, tensors: dict[str, Any]) -> dict[Any, Any]:
    need(type(stored) is dict, "no locations of tensors")
    tensor_entries = {
        name: value for name, value in tensors.items() if type(value) is dcp.TensorStorageMetadata
    }
    known = {
        (name, tuple(chunk.offsets))
        for name, value in tensor_entries.items()
        for chunk in value.chunks
    }
    locations: dict[Any, Any] = {}
    for key, value in stored.items():
        need(type(key) is tuple and len(key) == 2 and type(key[0]) is str, "a location of nothing")
        name, offset = key
        if name in tensor_entries:
            need(
                offset is not None and (name, offset) in known,
                f"a location of no part of {name[:200]!r}",
            )
        locations[dcp.MetadataIndex(name, None if offset is None else torch.Size(offset))] = (
            _storage_info(value)
        )
    return locations


def _storage_info(value: Any) -> _StorageInfo:
    fields = _record(value, _STORAGE_INFO)
    path: Any = fields.get("relative_path")
    offset: Any = fields.get("offset")
    length: Any = fields.get("length")
    need(type(path) is str, "a location without a file")
    if not _PLAIN_NAME.fullmatch(path) or path in (".", ".."):
        raise ValueError(f"it points outside its folder: {path[:200]!r}")
    need(
        type(offset) is int and type(length) is int and 0 <= offset < 2**62 and 0 <= length < 2**62,
        "a location that no file has",
    )
    need(not fields.get("transform_descriptors"), "bytes that are transformed")
    return _StorageInfo(path, offset, length)
