"""The tensors of a Hugging Face folder's safetensors files: where their bytes are, and the head of a new file."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints_convert.hf_folder import weight_files
from galen.errors import DataError
from megatron_ext.stored_tensor import StoredTensor

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
_POINTER = b"version https://git-lfs"


class Weights:
    """The tensors of a folder's safetensors files: where they are, and any rows of them.

    Raises:
        DataError: there is none, or one is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.files = weight_files(folder)
        if not self.files:
            raise DataError(f"{folder} holds no .safetensors file; save the model with save_pretrained(safe_serialization=True) first")
        self.tensors: dict[str, StoredTensor] = {}
        for path in self.files:
            self.tensors |= read_header(path)

    def names(self) -> set[str]:
        """Return the names of all tensors."""
        return set(self.tensors)

    def place(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and its first byte there; KeyError when there is none of that name."""
        return str(self.tensors[name].path), self.tensors[name].offset

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor; KeyError when there is none of that name."""
        return self.tensors[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor; KeyError when there is none of that name."""
        return self.tensors[name].dtype

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read some rows of a tensor; KeyError when there is none of that name."""
        return self.tensors[name].rows(start, stop)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on; KeyError when there is no tensor of that name."""
        self.tensors[name].read_into(target, start)

    def read(self, name: str) -> Tensor:
        """Read one tensor; KeyError when there is none of that name."""
        return self.tensors[name].read()


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name.

    Raises:
        DataError: the file is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DataError(f"{path} is only Git's pointer to the weights; fetch them with `git lfs pull` in {path.parent}")
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise DataError(f"{path} is damaged: its header should have {length:,} bytes, the file has {size:,}")
        try:
            header = json.loads(file.read(length))
            tensors = {
                name: StoredTensor(path, 8 + length + entry["data_offsets"][0], _DTYPES[entry["dtype"]], tuple(entry["shape"]))
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    for name, tensor in tensors.items():
        if tensor.offset + tensor.nbytes > size:
            raise DataError(f"{path} is damaged: it has {size:,} bytes, the tensor {name} would end at {tensor.offset + tensor.nbytes:,}")
    return tensors


def header(tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> bytes:
    """Return the first bytes of a safetensors file that holds these tensors, in this order; their own bytes follow."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for aligned data
    return len(text).to_bytes(8, "little") + text
