"""Limits of time and memory for each record, kept by the process that reads.

Its parent sees which record it is at.
"""

import mmap
import resource
import signal
import struct

from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.record import Place, Watch, Why
from galen.errors import DataError

MOST_ENDED = 20
"""Records of one file that may end a reader's process.

After these the rest of the file is skipped.
"""

NEARLY = 0.8
"""Fraction of the allowed memory from which on an error is attributed to it.

A library that is refused more memory may only give up.
"""

_STATE = struct.Struct("<3q")
_LOOKS, _SPLITS, _PARSES = range(3)


class Limits(Watch):
    """Notes the reader's current record in memory shared with the parent, and restarts its time."""

    def __init__(self, options: ReaderOptions) -> None:
        self.seconds, self.memory = options.max_record_seconds, options.max_record_memory
        self._begun = self._peak = _peak()
        self._state = mmap.mmap(-1, mmap.PAGESIZE)
        self.next_file()

    def next_file(self) -> None:
        """Forget what is known about the present file: the next one follows."""
        self.unsplit: dict[Place, Why] = {}
        self.unparsed: dict[Place, Why] = {}
        self._end: tuple[Place, str] | None = None
        """The place behind which it cannot be read, and why."""

    def begin(self, start: Place) -> None:
        """In the parent, before a process is forked; it alone writes the state after that."""
        _STATE.pack_into(self._state, 0, _LOOKS, *start)

    def looks(self, place: Place) -> None:
        """Note it.

        Raises:
            DataError: what follows ended a process before.
        """
        if self._end is not None and place >= self._end[0]:
            raise DataError(self._end[1])
        self._note(_LOOKS, place)

    def splits(self, place: Place) -> None:
        """Note it."""
        self._note(_SPLITS, place)

    def parses(self, place: Place) -> None:
        """Note it."""
        self._note(_PARSES, place)

    def parsed(self) -> None:
        """Look at how much memory that took.

        Raises:
            MemoryError: nearly all that is allowed.
        """
        peak = _peak()
        if peak > self._peak:
            grown, self._peak = peak - self._begun, peak
            if grown > NEARLY * self.memory:
                raise MemoryError

    def is_used_up(self) -> bool:
        """Say whether nearly all the memory for a record was taken, whatever came of it."""
        return _peak() - self._begun > NEARLY * self.memory

    def goes_on(self) -> None:
        """Begin the time anew."""
        signal.setitimer(signal.ITIMER_PROF, self.seconds)

    def limit_memory(self) -> None:
        """Allow so much memory for a record besides what the process has now."""
        self._begun = self._peak = _peak()
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _data_bytes() + self.memory
        resource.setrlimit(
            resource.RLIMIT_DATA,
            (limit if most == resource.RLIM_INFINITY else min(limit, most), most),
        )

    def blame(self, why: Why, start: Place) -> str | None:
        """In the parent: note that the reader's current record must not be tried again.

        Return why the file cannot be read further, if so.
        """
        kind, record, part = _STATE.unpack_from(self._state)
        place = Place(record, part)
        if kind == _LOOKS:
            broken = f"what follows record {record} {why.detail}"
            if place <= start or self._end is not None:
                return broken
            self._end = place, broken
            return None
        if len(self.unsplit) + len(self.unparsed) >= MOST_ENDED:
            return (
                f"more than {MOST_ENDED} of its records took too long, too much memory or crashed;"
                f" the last one {why.detail}"
            )
        (self.unsplit if kind == _SPLITS else self.unparsed)[place] = why
        return None

    def _note(self, kind: int, place: Place) -> None:
        _STATE.pack_into(self._state, 0, kind, *place)
        signal.setitimer(signal.ITIMER_PROF, self.seconds)


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _data_bytes() -> int:
    """Return how much private memory this process may write to, which the system's limit counts."""
    with open("/proc/self/status", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    return 0
