"""Output that appears under its final name only when it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galen import lock
from galen.errors import OutputConflictError


def partial_path(final: Path) -> Path:
    """Return the hidden name under which a file or folder is written: `.NAME.partial`."""
    return final.with_name(f".{final.name}.partial")


@contextmanager
def atomic_file(final: str | Path) -> Iterator[Path]:
    """Yield an empty new file beside `final`.

    It is flushed to disk and renamed on success, removed on an error.

    It is made and locked by this process alone: a link of its name is not followed, one that a
    killed command left is replaced.

    Raises:
        DataError: another process is writing it.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial_path(final)
    descriptor = lock.create_exclusively(temporary)
    try:
        yield temporary
        with temporary.open("rb") as file:  # by its name: a library may have put a new file there
            os.fsync(file.fileno())
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(final: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final`, or beside what a link of that name leads to.

    It is renamed to `final` on success, removed on an error.

    Raises:
        OutputConflictError: `final` exists already; nothing is overwritten.
        DataError: another process is making it.
    """
    final = Path(final)
    with lock.hold(final):
        if final.exists():
            raise OutputConflictError(f"{final} exists already; remove it or choose another output")
        target = lock.resolved_path(final)
        temporary = partial_path(target)
        remove(temporary)  # what a killed run left behind
        temporary.mkdir()
        try:
            yield temporary
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove(path: Path) -> None:
    """Remove a file or folder, if it exists; of a link, only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(final: str | Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_file(final) as temporary:
        temporary.write_text(text, encoding="utf-8")
