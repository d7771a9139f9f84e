"""A published file: its name, address, size and checksum."""

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.fetching.urls import public

RECORD_NAME = "downloads.jsonl"
"""Name of the list of downloaded files in the output folder."""

_MAX_NAME_BYTES = 255 - len("..partial.version")
"""Longest name in a file system, without the parts that working files add."""
_MAX_PATH_BYTES = 2000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORKING_FILE = re.compile(r"\..*\.partial(\.version)?")
_READ_BYTES = 2**20


@dataclass(frozen=True)
class Item:
    """A file to download."""

    name: str
    """Path below the output folder."""
    url: str
    size: int | None = None
    """Bytes, if published."""
    checksum: tuple[str, str] | None = None
    """("md5" | "sha256" | "git", hexadecimal), if published; git: SHA-1 of a Git blob."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def public_url(self) -> str:
        """The address as it may be shown."""
        return public(self.url)


class ContentMismatchError(Exception):
    """The downloaded content differs from the published file."""


def name_problem(name: str) -> str | None:
    """Return why a server's name for a file is unusable below the output folder, or None."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        return "it names a file outside its folder"
    for part in parts:
        if part in ("", ".") or _CONTROL.search(part):
            return "it is not a file name"
        if len(part.encode()) > _MAX_NAME_BYTES:
            return "the name is too long"
    if len(name.encode()) > _MAX_PATH_BYTES:
        return "the name is too long"
    if name == RECORD_NAME or any(map(_WORKING_FILE.fullmatch, parts)):
        return "the name is reserved for this command"
    return None


def check(path: Path, item: Item) -> dict[str, Any]:
    """Check a file against its published size and checksum.

    Without a checksum, a gzip file is decompressed to verify that it is complete.

    Returns:
        The fields `bytes`, `checked` and `checksum` of the file's record.

    Raises:
        ContentMismatchError: it differs.
    """
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        raise ContentMismatchError(f"it has {size:,} bytes, the published size is {item.size:,}")
    if item.checksum is None:
        return {"bytes": size, "checked": _check_unpublished(path, item)}
    algorithm, expected = item.checksum
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm, usedforsecurity=False)
    if algorithm == "git":
        digest.update(f"blob {size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        raise ContentMismatchError(
            f"its {algorithm} is {digest.hexdigest()}, the published one is {expected}"
        )
    return {"bytes": size, "checked": algorithm, "checksum": expected}


def _check_unpublished(path: Path, item: Item) -> str:
    """Check a file without a published checksum; return what was checked."""
    if item.name.endswith(".gz"):
        try:
            with gzip.open(path) as file:
                while file.read(_READ_BYTES):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise ContentMismatchError(f"it is not complete gzip data ({error})") from None
        return "gzip"
    return "size" if item.size is not None else "nothing is published"
