"""Reads pickles without running code: only the classes that checkpoints hold are known, every other name is refused.

PyTorch's `.metadata` is a bare pickle; `common.pt`, the entries of `.distcp` files and the old `model_optim_rng.pt` are zip
archives with a pickle in them. Tensors are not read but come back as `StoredTensor`, which says where their bytes are.
"""

import enum
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch.distributed.checkpoint.metadata import Metadata

from galen.errors import DataError
from megatron_ext.stored_tensor import StoredTensor

_DCP = "torch.distributed.checkpoint"
_DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2")
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_STORAGE_OF_BYTES = (("torch.storage", "_load_from_bytes"), ("megatron.core.safe_globals", "safe_load_from_bytes"))
_INERT = ("megatron.", "nemo.", "transformer_engine.")
_CPU_ADAM = ("torch.optim.adamw", "AdamW")
"""What Megatron's optimizer on the host steps with, named in its checkpoints."""
_MCORE_METADATA = ("megatron.core.dist_checkpointing.strategies.torch", "MCoreMetadata")
"""What Megatron Core 0.15 stores instead of PyTorch's Metadata: the same fields and one more."""
_REAL = {  # data classes and enumerations: making one runs nothing else
    *((f"{_DCP}.metadata", name) for name in ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties")),
    *((f"{_DCP}.metadata", name) for name in ("ChunkStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *((f"{_DCP}.planner", name) for name in ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData")),
    (f"{_DCP}.filesystem", "_StorageInfo"),
    (f"{_DCP}.filesystem", "_StoragePrefix"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("torch", "device"),
    *(("torch", name) for name in _DTYPES),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    *(("builtins", name) for name in ("set", "frozenset", "list", "dict", "tuple", "int", "float", "bool", "str", "bytearray", "complex")),
    *(("pathlib", name) for name in ("PosixPath", "PurePosixPath")),
    ("datetime", "timedelta"),
    ("signal", "Signals"),
    ("_io", "BytesIO"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *((module, "scalar") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
}


class Inert:
    """Stands for an object of a training program: keeps what was stored in it, runs none of its code."""

    name = ""

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: Any) -> "Inert":
        """Return itself, where a pickle calls what it stored."""
        return self

    def __hash__(self) -> int:
        return hash(type(self).name)

    def __eq__(self, other: object) -> bool:
        return self is other

    def append(self, _: Any) -> None:
        """Swallow an item of a list."""

    extend = append

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def __repr__(self) -> str:
        return f"{type(self).name.rpartition('.')[2]}{self.arguments or ''}"


class _NotRun(Inert):
    """Stands for a function or module of a training program: a file may name it, not call it or reach through it."""

    source: str | Path = ""

    def __new__(cls, *_: Any, **__: Any) -> "_NotRun":
        raise DataError(f"{cls.source} asks to run {cls.name}, which no checkpoint does; nothing was run")


def _is_class(name: str) -> bool:
    """Whether a name is written as those of classes are (`AttnBackend`, `Outer.Inner`), not as those of functions and modules."""
    return all(part.lstrip("_")[:1].isupper() for part in name.split("."))


class _Unpickler(pickle.Unpickler):
    """Unpickles data; `source` names the file in messages, `place` finds a storage by its key."""

    def __init__(self, file: IO[bytes], source: str | Path, place: Callable[[str], tuple[Path, int]] | None = None) -> None:
        super().__init__(file, encoding="utf-8")
        self.source, self.place = source, place

    def find_class(self, module: str, name: str) -> Any:
        """Return a known class; refuse any other by name."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg", "torch._C": "torch"}.get(module, module)
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter"):
            return _rebuild_parameter if name == "_rebuild_parameter" else _rebuild_tensor
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return type(name, (), {"dtype": _STORAGES[name]})
        if (module, name) == ("builtins", "getattr"):
            return self._member
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        if (module, name) == _MCORE_METADATA:
            return Metadata
        if (module, name) in _STORAGE_OF_BYTES:
            return self._storage
        if module.startswith(_INERT) or (module, name) == _CPU_ADAM:
            kind = Inert if module.startswith(_INERT) and _is_class(name) else _NotRun
            return type(name, (kind,), {"name": f"{module}.{name}", "source": self.source})
        if (module, name) not in _REAL or "." in name:
            raise DataError(
                f"{self.source} asks to run {module}.{name}, which no checkpoint holds; nothing was run. "
                "The file is not what it seems: do not load it with any other program either"
            )
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Return (dtype, file, offset) of a storage."""
        if self.place is None or not isinstance(pid, tuple) or pid[0] != "storage":
            raise DataError(f"{self.source} refers to an object outside itself ({str(pid)[:60]})")
        path, offset = self.place(str(pid[2]))
        return pid[1].dtype, path, offset

    def _storage(self, data: bytes) -> Any:
        """Return the storage in what PyTorch pickles of a tensor alone: five pickles (the storage, then its keys, the last), its bytes."""
        file = io.BytesIO(data)
        *_, storage, _keys = [_Unpickler(file, self.source, self.place).load() for _ in range(5)]  # all that torch.load unpickles
        return storage

    def _member(self, owner: Any, name: str) -> Any:
        """Return a member of an enumeration, the one thing for which such files call getattr."""
        if isinstance(owner, type) and issubclass(owner, Inert):
            return owner(name)  # refused where it is no class: a module's member may be anything
        if isinstance(owner, type) and issubclass(owner, enum.Enum) and name in owner.__members__:
            return owner[name]
        raise DataError(f"{self.source} asks to run getattr on {owner!r}, which no checkpoint holds; nothing was run")


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> StoredTensor:
    dtype, path, start = storage
    return StoredTensor(path, start + offset * dtype.itemsize, dtype, tuple(size), tuple(stride))


def _rebuild_parameter(tensor: StoredTensor, *_: Any) -> StoredTensor:
    return tensor


def read_pickle(path: str | Path) -> Any:
    """Read a bare pickle such as `.metadata`.

    Raises:
        DataError: it is damaged, or names a class that such files do not hold.
    """
    with Path(path).open("rb") as file:
        return _load(_Unpickler(file, path), path)


def check_bytes(data: bytes, source: str) -> None:
    """Check a bare pickle that holds its tensors itself.

    Raises:
        DataError: it is damaged, or names a class that such files do not hold.
    """
    _load(_Unpickler(io.BytesIO(data), source, lambda _: (Path(), 0)), source)


def read_archive(path: str | Path, offset: int = 0, length: int | None = None) -> Any:
    """Read what torch.save wrote into a file, or into `length` bytes of it from `offset`; tensors come as StoredTensor.

    Raises:
        DataError: it is damaged, or names a class that such files do not hold.
    """
    path = Path(path)
    length = path.stat().st_size - offset if length is None else length
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(_Window(file, offset, length))  # type: ignore[arg-type]
            names = archive.NameToInfo
            pickled = next(name for name in names if name.endswith("/data.pkl"))
        except (zipfile.BadZipFile, StopIteration, OSError) as error:
            raise DataError(f"{path} is not a file of torch.save, or is damaged: {error}") from None
        folder = pickled.removesuffix("data.pkl")

        def begin(name: str) -> int:
            info = names.get(name)
            if info is None or info.compress_type:
                raise DataError(f"{path} is damaged: its part {name!r} is missing or compressed")
            file.seek(offset + info.header_offset + 26)  # the local header repeats the name and may have another extra field
            name_size, extra = int.from_bytes(file.read(2), "little"), int.from_bytes(file.read(2), "little")
            return offset + info.header_offset + 30 + name_size + extra

        file.seek(begin(pickled))  # not archive.read: it insists on a checksum, which torch.save may leave out
        content = io.BytesIO(file.read(names[pickled].file_size))
        return _load(_Unpickler(content, path, lambda key: (path, begin(f"{folder}data/{key}"))), path)


def check_checkpoint(folder: str | Path) -> None:
    """Read every pickle of a torch_dist checkpoint that loading it would unpickle: `.metadata`, `common.pt`, stored objects.

    Raises:
        DataError: one of them is missing or damaged, or names a class that such files do not hold.
    """
    folder = Path(folder)
    try:
        metadata = read_pickle(folder / ".metadata")
    except OSError as error:
        raise DataError(f"{folder} is not a complete torch_dist checkpoint: .metadata: {error.strerror}") from None
    if (folder / "common.pt").is_file():
        read_archive(folder / "common.pt")
    for index, info in metadata.storage_data.items():
        if hasattr(metadata.state_dict_metadata.get(index.fqn), "chunks"):
            continue  # a tensor: PyTorch itself reads it with weights_only
        if Path(info.relative_path).name != info.relative_path:
            raise DataError(f"{folder / '.metadata'} points outside its folder: {info.relative_path!r}")
        if (folder / info.relative_path).is_file():
            read_archive(folder / info.relative_path, info.offset, info.length)


def _load(unpickler: _Unpickler, path: str | Path) -> Any:
    try:
        return unpickler.load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise DataError(f"{path} is damaged, or not a checkpoint's: {type(error).__name__}: {error}") from None


class _Window:
    """A part of an open file as a file of its own."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self.file, self.start, self.length, self.position = file, start, length, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as in a file."""
        self.position = max((0, self.position, self.length)[whence] + offset, 0)
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        rest = max(self.length - self.position, 0)
        self.file.seek(self.start + self.position)
        data = self.file.read(rest if size is None or size < 0 else min(size, rest))
        self.position += len(data)
        return data

    def seekable(self) -> bool:
        """Return True."""
        return True
