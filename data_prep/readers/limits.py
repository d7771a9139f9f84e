"""Limits of time and memory for each record, kept by the process that reads.

Its parent sees which record it is at.
"""

import mmap
import resource
import signal
import struct

from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.record import RecordIndex, Rejection, Watch
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
_SEARCH, _SPLIT, _PARSE = range(3)


class Limits(Watch):
    """Writes the reader's current record to memory shared with the parent, and times it."""

    def __init__(self, options: ReaderOptions) -> None:
        self.seconds = options.max_record_seconds
        self.memory = options.max_record_memory
        self._begun = _peak()
        self._peak = self._begun
        self._state = mmap.mmap(-1, mmap.PAGESIZE)
        self.next_file()

    def next_file(self) -> None:
        """Forget the rejections of the current file: the next one follows."""
        self.skip_split: dict[RecordIndex, Rejection] = {}
        self.skip_parse: dict[RecordIndex, Rejection] = {}
        self._end: tuple[RecordIndex, str] | None = None
        """From which record on it cannot be read, and why."""

    def begin(self, start: RecordIndex) -> None:
        """In the parent, before a process is forked; it alone writes the state after that."""
        _STATE.pack_into(self._state, 0, _SEARCH, *start)

    def before_search(self, index: RecordIndex) -> None:
        """Record the phase and restart the time limit.

        Raises:
            DataError: what follows ended a process before.
        """
        if self._end is not None and index >= self._end[0]:
            raise DataError(self._end[1])
        self._enter(_SEARCH, index)

    def before_split(self, index: RecordIndex) -> None:
        """Record the phase and restart the time limit."""
        self._enter(_SPLIT, index)

    def before_parse(self, index: RecordIndex) -> None:
        """Record the phase and restart the time limit."""
        self._enter(_PARSE, index)

    def after_parse(self) -> None:
        """Check how much memory that took.

        Raises:
            MemoryError: nearly all that is allowed.
        """
        peak = _peak()
        if peak > self._peak:
            grown = peak - self._begun
            self._peak = peak
            if grown > NEARLY * self.memory:
                raise MemoryError

    def is_used_up(self) -> bool:
        """Return whether nearly all the memory for a record was taken, whatever came of it."""
        return _peak() - self._begun > NEARLY * self.memory

    def restart_timer(self) -> None:
        """Restart the time limit."""
        signal.setitimer(signal.ITIMER_PROF, self.seconds)

    def limit_memory(self) -> None:
        """Allow so much memory for a record besides what the process has now."""
        self._begun = _peak()
        self._peak = self._begun
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _data_bytes() + self.memory
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))

    def blame(self, rejection: Rejection, start: RecordIndex) -> str | None:
        """In the parent: note that the reader's current record must not be tried again.

        Return why the file cannot be read further, if so.
        """
        phase, record, part = _STATE.unpack_from(self._state)
        index = RecordIndex(record, part)
        if phase == _SEARCH:
            broken = f"what follows record {record} {rejection.detail}"
            if index <= start or self._end is not None:
                return broken
            self._end = index, broken
            return None
        if len(self.skip_split) + len(self.skip_parse) >= MOST_ENDED:
            return (
                f"more than {MOST_ENDED} of its records took too long, too much memory or crashed;"
                f" the last one {rejection.detail}"
            )
        (self.skip_split if phase == _SPLIT else self.skip_parse)[index] = rejection
        return None

    def _enter(self, phase: int, index: RecordIndex) -> None:
        _STATE.pack_into(self._state, 0, phase, *index)
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
