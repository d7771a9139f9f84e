"""Reads the pickles of checkpoints without Python's unpickler.

It uses an interpreter of our own, with an exact list of names.

PyTorch's `.metadata` is a bare pickle; `common.pt`, the entries of `.distcp` files and the old
`model_optim_rng.pt` are zip archives with a pickle in them. Tensors are not read but come back as
`StoredTensor`, which has the location of their bytes. Only the values returned here are used:
nothing else in this repository unpickles a file of a checkpoint.
"""

from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from galen.errors import DataError
from megatron_ext.checkpoint import pickle_values
from megatron_ext.checkpoint.pickle_limits import Limits
from megatron_ext.checkpoint.pickle_machine import Machine
from megatron_ext.checkpoint.pickle_operations import OPERATIONS
from megatron_ext.checkpoint.pickle_stand_ins import Inert
from megatron_ext.checkpoint.stored_archive import StoredArchive
from megatron_ext.checkpoint.stored_metadata import rebuild

_METADATA = Limits(operations=100_000_000, bytes=2**33)
"""Limits of `.metadata`, which lists every part of every tensor.

The largest checkpoints have a few million.
"""
_MAX_BYTES = 2**31


def read_pickle(path: str | Path) -> Any:
    """Read a bare pickle such as `.metadata`, which comes as PyTorch's Metadata, rebuilt.

    Raises:
        DataError: it is damaged, or has names that such files do not have.
    """
    path = _file(path)
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES)
    value = _read_all(Machine(data, path, limits=_METADATA))
    is_metadata = type(value) is Inert and value.known.name.endswith("Metadata")
    return rebuild(value, path) if is_metadata else pickle_values.check(value, path)


def read_metadata(folder: Path) -> Metadata:
    """Read the `.metadata` of a torch_dist checkpoint.

    Raises:
        DataError: it is missing or damaged, or has names that such files do not have.
    """
    path = folder / ".metadata"
    try:
        metadata = read_pickle(path)
    except OSError as error:
        raise DataError(
            f"{folder} is not a complete torch_dist checkpoint: .metadata: {error.strerror}"
        ) from None
    if type(metadata) is not Metadata:
        raise DataError(f"{path} is not a distributed checkpoint's")
    return metadata


def read_bytes(data: bytes, source: str) -> Any:
    """Read a bare pickle that holds its tensors itself.

    Raises:
        DataError: it is damaged, or has names that such files do not have.
    """
    return pickle_values.check(_read_all(Machine(data, source)), source)


def read_archive(path: str | Path, offset: int = 0, length: int | None = None) -> Any:
    """Read a torch.save archive: a file, or `length` bytes of it from `offset`.

    Tensors are returned as StoredTensor.

    Raises:
        DataError: it is damaged, or has names that such files do not have.
    """
    path = _file(path)
    length = path.stat().st_size - offset if length is None else length
    with path.open("rb") as file:
        archive = StoredArchive(path, file, offset, length)
        value = _read_all(Machine(archive.pickle(), path, archive.storage))
    return pickle_values.check(value, path)


def _file(path: str | Path) -> Path:
    """Return a path that is a file or does not exist; reading a pipe could block forever."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a file")
    return path


def _read_all(machine: Machine) -> Any:
    """Return the value of a pickle that fills its file."""
    value = machine.load(OPERATIONS)
    if machine.end != len(machine.data):
        raise machine.damaged(f"its pickle ends at byte {machine.end:,} of {len(machine.data):,}")
    return value


def check_checkpoint(folder: str | Path) -> Metadata:
    """Read every pickle of a torch_dist checkpoint but its tensors'; return its metadata.

    Raises:
        DataError: one of them is missing or damaged, or names what such files do not hold.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if (folder / "common.pt").is_file():
        read_archive(folder / "common.pt")
    entries = metadata.state_dict_metadata
    objects = {
        (info.relative_path, info.offset, info.length)
        for index, info in metadata.storage_data.items()
        if type(entries.get(index.fqn, BytesStorageMetadata())) is BytesStorageMetadata
    }
    for name, offset, length in sorted(objects):  # many names may refer to the same bytes
        if (folder / name).is_file():
            read_archive(folder / name, offset, length)
    return metadata
