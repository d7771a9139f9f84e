"""Symbolic links in folders of models and checkpoints: none leads out of its folder into a copy.

A link may lead to a file of the same folder, or, in a snapshot of the Hugging Face hub's cache
(`models--OWNER--NAME/snapshots/REVISION`), to a blob of the same repository, as all its links do.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from galen import atomic
from galen.errors import DataError


def check(path: Path, folder: Path) -> None:
    """Check that a path in `folder` is no symbolic link that leads out of it, or to nothing.

    Raises:
        DataError: it is; names both ends.
    """
    if not path.is_symlink():
        return
    if not path.exists():  # left out, it would be missing without a word
        raise DataError(
            f"{path} is a symbolic link to {path.readlink()}, which leads nowhere; fetch or copy"
            " the folder again"
        )
    home, target = folder.resolve(), path.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(target.is_relative_to(folder) for folder in allowed):
        raise DataError(
            f"{path} is a symbolic link to {target}, outside its folder, and is not followed into a"
            " copy; put the file itself there"
        )


def check_folder(folder: Path) -> None:
    """Check everything in a folder of which a command will write a copy, or something derived.

    Raises:
        DataError: a symbolic link leads out of it.
    """
    for path in sorted(folder.rglob("*")):  # does not descend into linked folders
        check(path, folder)


def copy_files(paths: Iterable[Path], folder: Path, target: Path) -> list[Path]:
    """Copy files of `folder` to the same places below `target`; return what was written.

    An existing link at a destination is replaced, not followed.

    Raises:
        DataError: a symbolic link leads out of `folder`; nothing is copied then.
    """
    sources = list(paths)
    for path in sources:
        check(path, folder)
    written = []
    for path in sources:
        copy = target / path.relative_to(folder)
        if copy.is_dir() and not copy.is_symlink():
            atomic.remove(copy)
        # the copy may be the file itself: it is removed only when the new one is complete
        with atomic.atomic_file(copy) as temporary:
            shutil.copyfile(path, temporary)
        written.append(copy)
    return written


def copy_folder(folder: Path, target: Path) -> list[Path]:
    """Copy all files below `folder` to the same places below `target`; return what was written.

    Raises:
        DataError: a symbolic link leads out of `folder`; nothing is copied then.
    """
    check_folder(folder)
    return copy_files(
        [path for path in sorted(folder.rglob("*")) if path.is_file()], folder, target
    )
