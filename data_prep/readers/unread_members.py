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
        self._notes: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one; what macOS adds to archives is no member."""
        if name.startswith("__MACOSX/"):
            return
        ending = printable(PurePath(name).suffix.lower()) or "none"
        what = f"members of archives with the ending {ending[:20]}, which are not read"
        if name.lower().endswith(self._NESTED):
            what = "archives inside archives, which are not read: unpack them"
        elif len(self._notes) >= self._MOST and what not in self._notes:
            what = "members of archives with still other endings, which are not read"
        self._notes[what] += 1

    def records(self) -> Iterator[Record]:
        """Yield a record with their counts, for the end of the archive."""
        if self._notes:
            yield Record("members that are not read", notes=self._notes)
