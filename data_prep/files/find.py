"""Input files of a path, folder or glob."""

import glob
from collections.abc import Sequence
from pathlib import Path

from data_prep.files.decompress import SUFFIXES
from galen.errors import DataError


def find_files(path: str, endings: Sequence[str]) -> list[Path]:
    """Return the sorted files of a path.

    The file itself, the files below a folder with one of `endings` (in any case), or the matches of
    a glob.

    Raises:
        DataError: there are none.
    """
    expanded = Path(path).expanduser()
    if expanded.is_file():
        return [expanded]
    if expanded.is_dir():
        files = sorted(
            file
            for file in expanded.rglob("*")
            if file.is_file() and file.name.lower().endswith(tuple(endings))
        )
        if not files:
            raise DataError(f"the folder {path} holds no file that ends in {listed(endings)}")
        return files
    if glob.has_magic(path):
        matches = glob.glob(str(expanded), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        files = sorted(file for file in map(Path, matches) if file.is_file())
        if not files:
            raise DataError(f"no file matches the pattern {path}")
        return files
    raise DataError(f"{path} does not exist")


def listed(endings: Sequence[str]) -> str:
    """Return endings for a message: `.xml or .xml.gz`; of compressed ones, that they may be."""
    plain = [ending for ending in endings if not ending.endswith(SUFFIXES)]
    if not plain or len(plain) == len(endings) or len(endings) < 4:
        return " or ".join(endings)
    return f"{', '.join(plain)} (some also compressed)"
