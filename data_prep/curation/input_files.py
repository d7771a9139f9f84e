"""Input files of a recipe's sources, on disk or behind an fsspec address (s3://, hf://datasets/…).

Finds them, with their sizes and identities.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from data_prep.files.find import find_files, listed
from data_prep.readers.common_options import ReaderOptions
from galen import manifest
from galen.errors import DataError, install

_TASK_BYTES = 64 * 2**20
_TASK_FILES = 500


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file and the options of its reader."""

    reader: str
    path: str
    """Local path, or address with its protocol."""
    size: int
    """Bytes."""
    options: ReaderOptions
    """An instance of the reader's `Options`."""
    source: str = ""
    """Name of its source in the recipe."""


def is_remote(path: str) -> bool:
    """Return whether a path is an address for fsspec rather than a local path."""
    return "://" in path


def folder_of(path: str) -> str:
    """Return the folder of a file, or the address of what holds it."""
    folder, slash, _ = path.rpartition("/")
    return folder or slash or "."


def name_of(path: str) -> str:
    """Return a file's name in its folder."""
    return path.rpartition("/")[2]


def find_input_files(path: str, endings: Sequence[str]) -> list[tuple[str, int]]:
    """Return path and size of the files that a path or address names.

    One file, those below a folder with one of `endings` in any case, or a glob's matches.
    """
    if not is_remote(path):
        return [(str(file), file.stat().st_size) for file in find_files(path, endings)]
    try:
        system, root = fsspec.core.url_to_fs(path)
    except ImportError as error:  # fsspec's words name the package
        raise DataError(f"cannot read {path}: {error}{_extra_of(path)}") from None
    except Exception as error:
        raise DataError(f"cannot read {path}: {error or type(error).__name__}") from None
    try:
        files = [
            (system.unstrip_protocol(name), int(system.info(name)["size"]))
            for name in _names_in(system, root, endings)
        ]
    except Exception as error:  # each store has errors of its own
        raise DataError(f"cannot read {path}: {error or type(error).__name__}") from None
    if not files:
        raise DataError(f"{path} holds no file that ends in {listed(endings)}")
    return files


def _names_in(system: fsspec.AbstractFileSystem, root: str, endings: Sequence[str]) -> list[str]:
    """Return the names of the files that a path in a store names."""
    if any(character in root for character in "*?["):
        matches = system.glob(root, detail=True)
        return sorted(name for name, info in matches.items() if info["type"] == "file")
    if system.isfile(root):
        return [root]
    return sorted(name for name in system.find(root) if str(name).lower().endswith(tuple(endings)))


def _extra_of(path: str) -> str:
    """Return how to install what an address needs, where that is an extra of Galen."""
    return f" ({install('s3')})" if path.startswith(("s3://", "s3a://")) else ""


def describe(path: str) -> dict[str, Any]:
    """Return the record of an input for the manifest.

    Path, size, and SHA-256 or, behind an address, the store's version tag if it has one.
    """
    if not is_remote(path):
        return manifest.describe_file(path)
    system, root = fsspec.core.url_to_fs(path)
    info = system.info(root)
    tags = ("ETag", "etag", "md5Hash", "blob_id", "checksum")
    version = next((str(info[tag]) for tag in tags if info.get(tag)), None)
    record = {"path": path, "bytes": int(info["size"])}
    if version is not None:
        return record | {"sha256": None, "version": version}
    with system.open(root, "rb") as file:
        return record | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def split_into_tasks(
    files: Sequence[InputFile], many_per_task: Sequence[str]
) -> list[list[InputFile]]:
    """Return the files as tasks, in order.

    One task each, but neighbors with a reader in `many_per_task` share one, up to 64 MiB or 500
    files.
    """
    tasks: list[list[InputFile]] = []
    size = 0
    for file in files:
        if tasks and file.reader in many_per_task and _belongs_to(file, tasks[-1], size):
            tasks[-1].append(file)
            size += file.size
        else:
            tasks.append([file])
            size = file.size
    return tasks


def _belongs_to(file: InputFile, task: Sequence[InputFile], size: int) -> bool:
    """Return whether a task, whose files have `size` bytes, takes one more file."""
    first = task[0]
    is_alike = (file.reader, file.options, file.source) == (
        first.reader,
        first.options,
        first.source,
    )
    return is_alike and size + file.size <= _TASK_BYTES and len(task) < _TASK_FILES
