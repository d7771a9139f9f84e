"""Compares files with the SHA-256 in the manifest that was written with them.

Who reads a folder that one of our commands wrote, compares each file before anything made from it
is published: a flipped bit in a weight is seen nowhere else.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from galen import manifest
from galen.errors import DataError

logger = logging.getLogger(__name__)

HELP = "do not compare what is read with the SHA-256 in its manifest.json"
"""Of the option `--no-verify`."""
_HINT = (
    "fetch or make it again (--no-verify, or verify_checksums: false in a recipe, reads it as"
    " it is)"
)


def check(recorded: Mapping[Path, Mapping[str, Any]], hashes: Mapping[Path, str]) -> None:
    """Compare the hashes of files that were read with their records.

    A file without a record passes.

    Raises:
        DataError: one was altered; says which.
    """
    for path, digest in hashes.items():
        if path in recorded and recorded[path]["sha256"] != digest:
            raise DataError(
                f"{path} was altered: its SHA-256 is not the one in its manifest; {_HINT}"
            )


def difference(path: Path, record: Mapping[str, Any]) -> str | None:
    """Return how a file differs from its record, or None. Reads all of it."""
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size != record["bytes"]:
        return f"{path} has {path.stat().st_size} bytes instead of {record['bytes']}"
    if manifest.sha256(path) != record["sha256"]:
        return f"{path} was altered: its content is not what was written"
    return None


def verify(folder: Path, but: Collection[str] = ()) -> None:
    """Compare the files of a folder with the records in its manifest, where it has one.

    Files with some suffixes are skipped.

    Raises:
        DataError: one is missing or was altered; says which.
    """
    for path, record in manifest.recorded(folder).items():
        if path.suffix not in but and (wrong := difference(path, record)):
            raise DataError(f"{wrong}; {_HINT}")


def log_skipped(folder: Path) -> None:
    """Warn that a folder is read without verification."""
    logger.warning(f"{folder} is read without comparing it with the SHA-256 in its manifest")
