"""SHA-256 of the input, by a process of its own.

It begins while the tokenizer is loaded, which keeps one core busy alone.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from data_prep.tokenization.input_blocks import STDIN, Part
from galen import manifest
from galen.errors import DataError
from galen.worker import exit_with_parent


class PartHashes:
    """Starts to hash parts of the input, in this order.

    Made before the process has threads, since it forks.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        context = get_context("fork")
        self._pipe, other = context.Pipe(duplex=False)
        self._known: dict[Part, dict[str, Any]] = {}
        self.stdin = hashlib.sha256()
        """Of standard input; whoever reads it updates it."""
        process = context.Process(
            target=_hash, args=([part for part in parts if part.path != STDIN], other), daemon=True
        )
        process.start()
        other.close()

    def record(self, part: Part) -> dict[str, Any]:
        """Return a part's record for the manifest; waits until its hash is known.

        Raises:
            DataError: the file cannot be read.
        """
        if part.path == STDIN:
            return {"path": str(STDIN), "sha256": self.stdin.hexdigest()}
        while part not in self._known:
            try:
                done, found = self._pipe.recv()
            except (EOFError, OSError):
                raise DataError(
                    "the process that hashes the input ended before its time, perhaps for lack of"
                    " memory"
                ) from None
            if isinstance(found, str):
                raise DataError(found)
            self._known[done] = found
        return self._known[part]


def _hash(parts: Sequence[Part], pipe: Connection) -> None:
    exit_with_parent()
    # a pipe holds some hundred records; the hashing goes on while nobody takes them
    with ThreadPoolExecutor(1) as sender:
        for part in parts:
            try:
                sender.submit(pipe.send, (part, _record(part)))
            except OSError as error:
                sender.submit(pipe.send, (part, f"{part.path} cannot be read: {error.strerror}"))


def _record(part: Part) -> dict[str, Any]:
    if part.end is None:
        return manifest.describe_file(part.path)
    digest, left = hashlib.sha256(), part.size
    with part.path.open("rb") as file:
        file.seek(part.start)
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return {
        "path": str(part.path),
        "bytes": part.size,
        "start": part.start,
        "end": part.end,
        "sha256": digest.hexdigest(),
    }
