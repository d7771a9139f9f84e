"""Reads and writes Hugging Face model folders: weights in safetensors, configuration and tokenizer as plain files."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galen import manifest
from galen.errors import DataError
from megatron_ext.stored_tensor import StoredTensor

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
INDEX = "model.safetensors.index.json"
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

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


_POINTER = b"version https://git-lfs"


class Weights:
    """The tensors of a folder's safetensors files: where they are, and any rows of them."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.files = sorted(folder.glob("*.safetensors"))
        if not self.files:
            raise DataError(f"{folder} holds no .safetensors file; save the model with save_pretrained(safe_serialization=True) first")
        self.tensors: dict[str, StoredTensor] = {}
        for path in self.files:
            self.tensors |= read_header(path)
        index = folder / INDEX
        if index.is_file():
            missing = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) - set(self.tensors))
            if missing:
                raise DataError(f"{index} lists tensors that no file holds: {', '.join(missing[:3])} … ({len(missing)} in all)")

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


def copy_companions(source: str | Path, target: str | Path) -> list[Path]:
    """Copy all but the weights (configuration, tokenizer, chat template, licence) and return what was written."""
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    names = [
        path.name
        for path in sorted(Path(source).iterdir())
        if path.is_file()
        and path.suffix not in _WEIGHTS
        and not path.name.endswith(".index.json")
        and not path.name.startswith(".")
        and path.name != manifest.NAME
    ]
    for name in names:
        shutil.copyfile(Path(source) / name, target / name)
    return [target / name for name in names]


def check_vocabulary(folder: str | Path, rows: int) -> None:
    """Check that every id that the folder's tokenizer can give has a row in the embedding.

    Raises:
        DataError: it has not; names both numbers and what to run.
    """
    path, largest = _largest_id(Path(folder))
    if largest >= rows:
        raise DataError(
            f"{path} gives ids up to {largest}, but the model has {rows} embedding rows (vocab_size in config.json): "
            "they belong to different models, or tokens were added without resizing the embedding; "
            "put the model's own tokenizer there and add the tokens with hf_to_megatron.py --add-special-tokens FILE"
        )


def tokenizer_ids(folder: str | Path | None) -> int | None:
    """Return the largest id that the folder's tokenizer can give, plus one; None when the folder has no tokenizer."""
    largest = -1 if folder is None else _largest_id(Path(folder))[1]
    return None if largest < 0 else largest + 1


def _largest_id(folder: Path) -> tuple[Path, int]:
    """Return the file that decides which ids there are and the largest of them, -1 for a folder without tokenizer."""
    if (path := folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        return path, max(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values(), default=-1)
    if (path := folder / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        added = folder / "added_tokens.json"
        ids = json.loads(added.read_text(encoding="utf-8")).values() if added.is_file() else ()
        return path, max([SentencePieceProcessor(model_file=str(path)).vocab_size() - 1, *ids])
    return path, -1
