"""The input files that a user's path matches."""

import glob
from collections.abc import Sequence
from pathlib import Path

from galen.errors import DataError


def find_files(path: str, endings: Sequence[str]) -> list[Path]:
    """Return the files that `path` names.

    The file itself, those below a folder with one of `endings` (in any case), or a glob's matches,
    sorted.

    Raises:
        DataError: nothing is there.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return [given]
    if given.is_dir():
        found = sorted(
            file
            for file in given.rglob("*")
            if file.is_file() and file.name.lower().endswith(tuple(endings))
        )
        if not found:
            raise DataError(f"the folder {path} holds no file that ends in {' or '.join(endings)}")
        return found
    if glob.has_magic(path):
        matches = glob.glob(str(given), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        found = sorted(file for file in map(Path, matches) if file.is_file())
        if not found:
            raise DataError(f"no file fits the pattern {path}")
        return found
    raise DataError(f"{path} does not exist")
