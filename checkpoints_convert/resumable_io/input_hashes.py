"""Hashes the files that a conversion reads, in a thread beside it."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Condition
from typing import Any, Self

from galen import checksums, manifest

_BLOCK = 16 * 2**20  # bytes; each takes the interpreter lock twice
_AHEAD = 2**30  # bytes; few enough to stay in the cache
_WEIGHTS = (".safetensors", ".distcp", ".bin")
_BEHIND = 2**29  # bytes before the conversion's position that it may still read


class InputHashes:
    """The SHA-256 of each file, in the order in which the conversion reads them.

    Hashing runs ahead, so that the conversion reads from the page cache, but not so far that the
    pages are evicted. Pages that both have read are dropped: the system allocates new memory much
    more slowly than memory that was just in use.

    Args:
        paths: the files.
        recorded: records of their folder's manifest (`manifest.recorded`), with which the hashes
            are compared, also those of its small files.
    """

    def __init__(
        self, paths: Iterable[Path], recorded: Mapping[Path, Mapping[str, Any]] | None = None
    ) -> None:
        self.paths = list(paths)
        self._recorded = recorded or {}
        self._thread = ThreadPoolExecutor(1, "hash")
        self._moved = Condition()
        self._fraction = 0.0
        self._closed = False
        self.ahead = _AHEAD
        """Bytes by which the hashes may be ahead of the conversion."""
        self.hashed = 0
        """Bytes so far."""
        self._cached: deque[tuple[int, Path, int]] = deque()
        self._total = sum(path.stat().st_size for path in self.paths if path.is_file())
        self._hashes = {path: self._thread.submit(self._hash, path) for path in self.paths}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._moved:
            self._closed = True
            self._moved.notify()
        self._thread.shutdown(cancel_futures=True)

    def advance(self, fraction: float) -> None:
        """Set the fraction of the conversion, 0 to 1, that is done."""
        with self._moved:
            self._fraction = fraction
            self._moved.notify()

    def result(self) -> dict[Path, str]:
        """Wait for the hashes and return them.

        Raises:
            DataError: a file was altered since its record was written.
        """
        self.advance(1.0)
        hashes = {path: future.result() for path, future in self._hashes.items()}
        others = [
            path
            for path in self._recorded
            if path not in hashes and path.suffix not in _WEIGHTS and path.is_file()
        ]
        checksums.check(self._recorded, hashes | {path: manifest.sha256(path) for path in others})
        return hashes

    def _hash(self, path: Path) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_BLOCK))
        with path.open("rb", buffering=0) as file:
            while not self._closed and (count := file.readinto(buffer)):
                digest.update(buffer[:count])
                self.hashed += count
                self._cached.append((self.hashed, path, file.tell()))
                with self._moved:
                    self._moved.wait_for(
                        lambda: (
                            self._closed or self.hashed <= self._fraction * self._total + self.ahead
                        )
                    )
                self._drop()
        return digest.hexdigest()

    def _drop(self) -> None:
        """Drop the pages that the conversion has read from the page cache, where supported."""
        while (
            hasattr(os, "posix_fadvise")
            and self._cached
            and self._cached[0][0] <= self._fraction * self._total - _BEHIND
        ):
            _, path, end = self._cached.popleft()
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, end, os.POSIX_FADV_DONTNEED)
