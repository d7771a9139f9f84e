"""The tensors of a Hugging Face folder's safetensors files.

Finds their bytes, and makes the header of a new file.
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from checkpoints_convert.hf.folder import weight_files
from galen.errors import DataError, one_line
from megatron_ext.checkpoint.stored_tensor import StoredTensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST_HEADER = 100_000_000
"""Bytes; the limit of the format's own library."""
_POINTER = b"version https://git-lfs"


class Weights:
    """The tensors of a folder's safetensors files, of which any rows can be read.

    Args:
        folder: a Hugging Face folder.
        rename: returns the name under which a tensor is known, None for one to leave out.

    Raises:
        DataError: the folder has none, or one is missing or damaged.
    """

    def __init__(
        self, folder: str | Path, rename: Callable[[str], str | None] | None = None
    ) -> None:
        self.files = weight_files(folder)
        if not self.files:
            raise DataError(
                f"{folder} holds no .safetensors file; save the model with"
                " save_pretrained(safe_serialization=True) first"
            )
        self.tensors: dict[str, StoredTensor] = {}
        self.left_out: list[str] = []
        """Names of the tensors that are left out."""
        for path in self.files:
            tensors = self._rename(path, read_header(path), rename)
            if duplicates := tensors.keys() & self.tensors.keys():
                name = min(duplicates)
                raise DataError(
                    f"{path} and {self.tensors[name].path.name} both hold {name}; remove the file"
                    " that is not the model's"
                )
            self.tensors |= tensors

    def _rename(
        self,
        path: Path,
        tensors: dict[str, StoredTensor],
        rename: Callable[[str], str | None] | None,
    ) -> dict[str, StoredTensor]:
        if rename is None:
            return tensors
        renamed: dict[str, StoredTensor] = {}
        for original, tensor in tensors.items():
            name = rename(original)
            if name is None:
                self.left_out.append(original)
                continue
            if name in renamed:
                raise DataError(f"{path} holds {name} twice, once as {original}")
            renamed[name] = tensor
        return renamed

    def names(self) -> set[str]:
        """Return the names of all tensors."""
        return set(self.tensors)

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and the offset of its first byte.

        Raises:
            KeyError: the name is unknown.
        """
        return str(self.tensors[name].path), self.tensors[name].offset

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor; KeyError for an unknown name."""
        return self.tensors[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor; KeyError for an unknown name."""
        return self.tensors[name].dtype

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read some rows of a tensor; KeyError for an unknown name."""
        return self.tensors[name].rows(start, stop)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on.

        Raises:
            KeyError: the name is unknown.
        """
        self.tensors[name].read_into(target, start)

    def read(self, name: str) -> Tensor:
        """Read one tensor; KeyError for an unknown name."""
        return self.tensors[name].read()


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name, in the order of their bytes.

    Refused is what the format's own library refuses: tensors that overlap, leave a gap or do not
    end with the file, sizes that do not match, numbers that are no integers, duplicate names.

    Raises:
        DataError: the file is damaged; names the tensor.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DataError(
                f"{path} is only Git's pointer to the weights; fetch them with `git lfs pull` in"
                f" {path.parent}"
            )
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8 or length > _MOST_HEADER:
            raise DataError(
                f"{path} is damaged: its header should have {length:,} bytes, the file has {size:,}"
            )
        text = file.read(length)
    try:
        entries = _parse_header(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged: its header is none of safetensors: {one_line(error)}"
        ) from None
    tensors = {}
    for name, entry in entries.items():
        if wrong := _misshapen(entry):
            raise DataError(f"{path} is damaged: tensor {name}: {wrong}")
        tensors[name] = StoredTensor(
            path, entry["data_offsets"][0], _DTYPES[entry["dtype"]], tuple(entry["shape"])
        )
    ends = {name: entry["data_offsets"][1] for name, entry in entries.items()}
    _check_tiled(path, tensors, ends, 8 + length)
    return {
        name: replace(tensor, offset=8 + length + tensor.offset) for name, tensor in tensors.items()
    }


def _check_tiled(
    path: Path, tensors: dict[str, StoredTensor], ends: dict[str, int], header_size: int
) -> None:
    """Check that the tensors fill the file behind its header, without overlap or gap."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, ends[item[0]])):
        if tensor.offset != end:
            raise DataError(
                f"{path} is damaged: tensor {name} begins at {tensor.offset:,}, the one before it"
                f" ends at {end:,}"
            )
        end = ends[name]
    size = path.stat().st_size
    if header_size + end != size:
        raise DataError(
            f"{path} is damaged: it has {size:,} bytes, its tensors end at {header_size + end:,}"
        )


def _parse_header(text: bytes) -> dict[str, Any]:
    """Return the entries of a header without its remarks.

    Raises:
        ValueError, RecursionError: it is none.
    """
    if not text.startswith(b"{"):
        raise ValueError("it does not begin with {")
    header: dict[str, Any] = json.loads(
        text.decode("utf-8"),
        object_pairs_hook=_unique,
        parse_int=_parse_size,
        parse_float=_no_float,
        parse_constant=_no_float,
    )
    json.dumps(header, ensure_ascii=False).encode()  # fails for half a surrogate pair
    remarks = header.pop("__metadata__", {})
    if not isinstance(remarks, dict) or not all(
        isinstance(value, str) for value in remarks.values()
    ):
        raise ValueError("__metadata__ should hold texts")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return values


def _parse_size(text: str) -> int:
    if text.startswith("-") or len(text) > 19:
        raise ValueError(f"{text[:40]} is not a size")
    return int(text)


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")


def _misshapen(entry: Any) -> str | None:
    """Return the problem with a tensor's entry in a header, or None."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "it should have dtype, shape and data_offsets"
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        return f"the precision {entry['dtype']!r} is not known"
    for key in ("shape", "data_offsets"):
        if not isinstance(entry[key], list) or not all(
            type(number) is int for number in entry[key]
        ):
            return f"{key} should hold integers"
    if len(entry["data_offsets"]) != 2:
        return "data_offsets should hold its first byte and its end"
    start, end = entry["data_offsets"]
    # also the sizes after a zero
    if math.prod(max(number, 1) for number in entry["shape"]) >= 2**63:
        return f"the size {entry['shape']} is impossible"
    nbytes = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
    if end - start != nbytes:
        return (
            f"the size {entry['shape']} in {entry['dtype']} takes {nbytes:,} bytes, data_offsets"
            f" give it {end - start:,}"
        )
    return None


def header(tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> bytes:
    """Return the header of a safetensors file that holds these tensors, in this order.

    The tensors' own bytes follow it.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start = end
        end += math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format requires aligned data
    return len(text).to_bytes(8, "little") + text
