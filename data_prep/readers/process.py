"""A process that reads files, so that only it is killed when a record takes too long or too much.

Libraries in C (pdfium, lxml, regular expressions) cannot be interrupted from within their process.
So the files of a task are read in a process of their own, forked from the task's: the kernel ends
it when a record takes more than `max_record_seconds` of processor time, and refuses it more than
`max_record_memory` besides what it had before the record. The task's process then starts another
one, which goes through the file again up to the record at fault, puts that into quarantine and goes
on behind it. Processor time rather than time of the clock: what is put into quarantine does not
depend on how busy the machine is.
"""

import ctypes
import errno
import gc
import io
import os
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, BinaryIO

import orjson
from datatrove.data import Document

from data_prep.readers.base import SourceReader
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.limits import NEARLY, Limits
from data_prep.readers.record import (
    MEMORY_LIMIT,
    START,
    Outcome,
    QuarantinedRecord,
    RecordIndex,
    Rejection,
    documents_of,
    is_of_system,
    printable,
)
from galen.errors import DataError, one_line

_BATCH_BYTES = 2**18
_BATCH_SECONDS = 0.3
_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1

Readers = Sequence[tuple[Callable[[], SourceReader], str]]
"""For each file, what makes its reader, and its name in the reader's folder."""


@dataclass(slots=True)
class Batch:
    """Results of consecutive records of one file."""

    file: int
    """Which file."""
    last: RecordIndex
    """The last of the records."""
    documents: list[Document] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    bad: list[QuarantinedRecord] = field(default_factory=list)
    position: int = 0
    """Bytes of the file read so far."""
    broken: str | None = None
    """Why the file cannot be read further."""
    finished: bool = False
    """The file is read to its end, or as far as possible."""
    failed: list[Any] | None = None
    """Number, words and file name of an error of the system, which is none of what the file holds.
    """


def read_files(files: Readers, options: ReaderOptions) -> Iterator[Batch]:
    """Yield the results of files, in order, read in processes of their own.

    Args:
        files: the files.
        options: the limits.

    Raises:
        DataError: the system ended the process.
        OSError: a file cannot be opened, or a disk or network fails.
    """
    number = 0
    start = START
    watch = Limits(options)
    while number < len(files):
        last = Batch(number, start)
        watch.begin(start)
        with _Child(files, number, start, watch) as child:
            for batch in child.batches():
                if batch.failed is not None:
                    raise OSError(*batch.failed)
                if batch.finished:
                    number = batch.file + 1
                    start = START
                    watch.next_file()
                else:
                    number = batch.file
                    start = RecordIndex(batch.last.record, batch.last.part + 1)
                last = batch
                yield batch
            status, peak = child.wait()
        # all is read, or its memory was used up, which must not be the fault of the next record
        if status == 0:
            continue
        broken = watch.blame(_rejection_for(status, peak, options), start)
        if broken is not None:
            position = last.position if last.file == number else 0
            yield Batch(number, start, position=position, broken=broken, finished=True)
            number += 1
            start = START
            watch.next_file()


def _rejection_for(status: int, peak: int, options: ReaderOptions) -> Rejection:
    """Return why a reader's process ended.

    Raises:
        DataError: the system ended it.
    """
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return Rejection(
            "time limit",
            f"took more than {options.max_record_seconds:g} s of processor time"
            " (max_record_seconds)",
        )
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        raise DataError(
            f"a reader's process was ended by {signal.Signals(-code).name}, perhaps for lack of"
            " memory: try fewer --workers or a lower max_record_memory"
        )
    if code >= 0:
        raise RuntimeError(
            f"a reader's process ended with code {code}: a bug, please report it with the log of"
            " the worker"
        )
    if peak > options.max_record_memory * NEARLY:
        return Rejection(
            MEMORY_LIMIT,
            f"took more than {options.max_record_memory:,} bytes of memory (max_record_memory)",
        )
    return Rejection("crash", f"crashed the library that reads it ({signal.Signals(-code).name})")


class _Child:
    """A process that reads files from a record on and sends the results."""

    def __init__(self, files: Readers, number: int, start: RecordIndex, watch: Limits) -> None:
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        with warnings.catch_warnings():
            # the worker's other thread only waits for its parent
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(read_end)
            _serve(parent, write_end, files, number, start, watch)
        os.close(write_end)
        self._pipe: BinaryIO = os.fdopen(read_end, "rb")
        self._ended: tuple[int, int] | None = None

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        if self._ended is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def batches(self) -> Iterator[Batch]:
        """Yield what it sends until it ends."""
        while len(head := self._pipe.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if len(body := self._pipe.read(length)) < length:
                return
            yield _received(orjson.loads(body))

    def wait(self) -> tuple[int, int]:
        """Return its exit status and the most memory that it had, in bytes."""
        if self._ended is None:
            _, status, usage = os.wait4(self.pid, 0)
            self._ended = status, usage.ru_maxrss * 1024
        return self._ended


def _received(message: dict[str, Any]) -> Batch:
    message["last"] = RecordIndex(*message["last"])
    message["documents"] = list(chain.from_iterable(map(documents_of, message["documents"])))
    message["bad"] = [QuarantinedRecord(**bad) for bad in message["bad"]]
    return Batch(**message)


def _serve(
    parent: int, pipe: int, files: Readers, number: int, start: RecordIndex, watch: Limits
) -> None:
    """In the child: read, send, and end the process."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        _end_with(parent)
        gc.freeze()  # the collector would write to, and so copy, what is shared
        with os.fdopen(pipe, "wb", buffering=0) as file:
            sender = _Sender(file, number, watch)
            for index in range(number, len(files)):
                _read(files[index], start, watch, sender)
                start = START
                watch.next_file()
        code = 0
    except (WorkerDied, _UsedUp):
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _read(
    file: tuple[Callable[[], SourceReader], str],
    start: RecordIndex,
    watch: Limits,
    sender: "_Sender",
) -> None:
    """Read one file from a record on and send the results."""
    make, name = file
    broken = None
    try:
        watch.before_search(start)
        watch.limit_memory()
        reader = make()
        reader.watch = watch
        for outcome in reader.outcomes(name, start):
            sender.add(outcome, reader)
            if watch.is_used_up() or any(bad.reason == MEMORY_LIMIT for bad in outcome.bad):
                sender.send()
                raise _UsedUp
    except DataError as error:
        sender.end_file(printable(str(error)))
        if isinstance(error.__context__, MemoryError):
            raise _UsedUp from None
        return
    except (WorkerDied, _UsedUp):
        raise
    except Exception as error:
        if is_of_system(error):
            sender.end_file(None, _failure(error, name))
            return
        traceback.print_exc()
        broken = printable(f"{type(error).__name__}: {one_line(error)}")
    sender.end_file(broken)


class _UsedUp(Exception):
    """A record took all memory, which libraries may not give back.

    The rest is for a new process.
    """


def _failure(error: Exception, name: str) -> list[Any]:
    """Return number, words and file name of an error of the system; fsspec's may have no number."""
    number = getattr(error, "errno", None) or (
        errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
    )
    words = getattr(error, "strerror", None) or one_line(error) or os.strerror(number)
    return [number, printable(words), printable(str(getattr(error, "filename", None) or name))]


class WorkerDied(Exception):
    """Nobody waits for what is sent."""


class _Sender:
    """Collects the outcomes of records and sends them, some records at a time."""

    def __init__(self, pipe: io.FileIO, number: int, watch: Limits) -> None:
        self._pipe = pipe
        self._number = number
        self._watch = watch
        self._begin(START)

    def _begin(self, last: RecordIndex) -> None:
        self._last = last
        self._documents: list[orjson.Fragment] = []
        self._counts: Counter[str] = Counter()
        self._bad: list[dict[str, str]] = []
        self._position = 0
        self._size = 0
        self._since = time.monotonic()

    def add(self, outcome: Outcome, reader: SourceReader) -> None:
        """Add the outcome of one record."""
        self._last = outcome.index
        self._documents.append(orjson.Fragment(outcome.data))
        self._counts.update(outcome.counts)
        self._bad += map(asdict, outcome.bad)
        self._size += len(outcome.data)
        if self._size >= _BATCH_BYTES or time.monotonic() - self._since > _BATCH_SECONDS:
            raw = reader.raw
            self._position = raw.tell() if raw is not None and not raw.closed else 0
            self.send()

    def end_file(self, broken: str | None, failed: list[Any] | None = None) -> None:
        """Send the rest of a file."""
        self.send(broken, finished=True, failed=failed)
        self._number += 1
        self._begin(START)

    def send(
        self, broken: str | None = None, finished: bool = False, failed: list[Any] | None = None
    ) -> None:
        """Send what was collected."""
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        # the limit is for the reading of records
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        message = {
            "file": self._number,
            "last": list(self._last),  # orjson takes no named tuples
            "documents": self._documents,
            "counts": self._counts,
            "bad": self._bad,
            "position": self._position,
            "broken": broken,
            "finished": finished,
            "failed": failed,
        }
        body = orjson.dumps(message)
        for chunk in (_LENGTH.pack(len(body)), body):
            view = memoryview(chunk)
            while view:
                try:
                    view = view[self._pipe.write(view) :]
                except BrokenPipeError:
                    raise WorkerDied from None
        self._begin(self._last)
        self._watch.limit_memory()


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
