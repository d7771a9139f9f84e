"""A file that is written sequentially past the page cache, and hashed meanwhile."""

import hashlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from galen.errors import DataError

_BLOCK = 8 * 2**20  # bytes written at once; there are two
# direct writes start and end at multiples of a disk's sector, which is at most this
_ALIGNMENT = 4096


class OutputFile:
    """An open file with the methods that `torch.save` requires.

    A full block is written by a thread while this one hashes it and fills the other block. Linux
    writes it directly to the disk (`O_DIRECT`): no copy in the page cache, which costs more time
    than the rest of a conversion, and nothing left to flush at the end. Where the file system
    refuses that, the cache is used.

    Raises:
        DataError: the disk is full, or fails.
    """

    def __init__(self, path: Path, progress: Callable[[int], None] = lambda _: None) -> None:
        self.path = path
        self._progress = progress
        self._file = _open(path)
        # page-aligned, as direct writes require
        self._blocks = [mmap.mmap(-1, _BLOCK) for _ in range(2)]
        self._filled = self._stored = 0
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "write")
        self._writing: Future[None] | None = None

    def write(self, data: Any) -> int:
        """Append bytes; return their number."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            part = view[done : done + _BLOCK - self._filled]
            self._blocks[0][self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            done += len(part)
            if self._filled == _BLOCK:
                self._next_block()
        return len(view)

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self._stored + self._filled

    def flush(self) -> None:
        """Do nothing: `close` flushes everything to the disk."""

    def close(self) -> str:
        """Flush the file to the disk and return its SHA-256."""
        try:
            self._next_block()
            self._wait()
            os.ftruncate(self._file, self._stored)  # the last block was padded to a sector
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self.abandon()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Close the file as it is, after a failure."""
        self._thread.shutdown()
        os.close(self._file)

    def _next_block(self) -> None:
        self._wait()
        block = self._blocks[0]
        length = self._filled
        self._writing = self._thread.submit(self._store, block, length, self._stored)
        self._blocks.reverse()
        self._stored += length
        self._filled = 0
        with memoryview(block) as view:
            self._hash.update(view[:length])
        self._progress(length)

    def _wait(self) -> None:
        if self._writing is not None:
            try:
                self._writing.result()
            except OSError as error:
                raise self._failed(error) from None

    def _store(self, block: mmap.mmap, length: int, position: int) -> None:
        end = -(-length // _ALIGNMENT) * _ALIGNMENT
        done = 0
        with memoryview(block) as view:
            while done < end:
                done += os.pwrite(self._file, view[done:end], position + done)

    def _failed(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write {self.path}: {error.strerror}; fix that and run the same command again"
            " to resume"
        )


def _open(path: Path) -> int:
    """Open a new file, never through a link.

    If a worker of a killed command is still running, it keeps the old file.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o666)
    except OSError:
        path.unlink(missing_ok=True)  # Linux may have made it before it refused
        return os.open(path, flags, 0o666)
