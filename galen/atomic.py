"""Output that appears under its final name only when it is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galen.errors import DataError


@contextmanager
def atomic_file(final: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `final`; on success it is flushed to disk and renamed, on an error removed."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(final: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final`; renamed to it on success, removed on an error.

    Raises:
        DataError: `final` exists already; nothing is overwritten.
    """
    final = Path(final)
    if final.exists():
        raise DataError(f"{final} exists already; remove it or choose another output")
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left behind
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(final: str | Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_file(final) as temporary:
        temporary.write_text(text, encoding="utf-8")
