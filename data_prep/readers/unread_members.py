"""Members of archives that are not read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from data_prep.readers.record import Record, printable


class UnreadMembers:
    """Counts the members of an archive that are not read, by their endings."""

    _MOST = 20
    _NESTED = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")

    def __init__(self) -> None:
        self._warnings: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one; the files that macOS adds to archives are not members."""
        if name.startswith("__MACOSX/"):
            return
        ending = printable(PurePath(name).suffix.lower()) or "none"
        warning = f"members of archives with the ending {ending[:20]}, which are not read"
        if name.lower().endswith(self._NESTED):
            warning = "archives inside archives, which are not read: unpack them"
        elif len(self._warnings) >= self._MOST and warning not in self._warnings:
            warning = "members of archives with still other endings, which are not read"
        self._warnings[warning] += 1

    def records(self) -> Iterator[Record]:
        """Yield a record with their counts, for the end of the archive."""
        if self._warnings:
            yield Record("members that are not read", warnings=self._warnings)
