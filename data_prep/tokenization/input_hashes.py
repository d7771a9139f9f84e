"""SHA-256 of the input, computed by a separate process.

It starts while the tokenizer is loaded, which uses only one core.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from data_prep.tokenization.input_blocks import STDIN, FileRange
from galen import manifest
from galen.errors import DataError
from galen.worker import exit_with_parent


class InputHashes:
    """Hashes file ranges in the background, in this order.

    To be created before the process has threads, since it forks.
    """

    def __init__(self, ranges: Sequence[FileRange]) -> None:
        context = get_context("fork")
        self._pipe, child_conn = context.Pipe(duplex=False)
        self._known: dict[FileRange, dict[str, Any]] = {}
        self.stdin = hashlib.sha256()
        """Hash of standard input, updated by its reader."""
        files = [item for item in ranges if item.path != STDIN]
        process = context.Process(target=_hash, args=(files, child_conn), daemon=True)
        process.start()
        child_conn.close()

    def record(self, item: FileRange) -> dict[str, Any]:
        """Return a range's record for the manifest; waits until its hash is known.

        Raises:
            DataError: the file cannot be read.
        """
        if item.path == STDIN:
            return {"path": str(STDIN), "sha256": self.stdin.hexdigest()}
        while item not in self._known:
            try:
                hashed_item, record = self._pipe.recv()
            except (EOFError, OSError):
                raise DataError(
                    "the process that hashes the input ended early, perhaps for lack of memory"
                ) from None
            if isinstance(record, str):
                raise DataError(record)
            self._known[hashed_item] = record
        return self._known[item]


def _hash(ranges: Sequence[FileRange], pipe: Connection) -> None:
    exit_with_parent()
    # a pipe buffers only some hundred records; a thread sends, so that hashing need not wait
    with ThreadPoolExecutor(1) as sender:
        for item in ranges:
            try:
                sender.submit(pipe.send, (item, _record(item)))
            except OSError as error:
                sender.submit(pipe.send, (item, f"{item.path} cannot be read: {error.strerror}"))


def _record(item: FileRange) -> dict[str, Any]:
    if item.end is None:
        return manifest.describe_file(item.path)
    digest = hashlib.sha256()
    left = item.size
    with item.path.open("rb") as file:
        file.seek(item.start)
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return {
        "path": str(item.path),
        "bytes": item.size,
        "start": item.start,
        "end": item.end,
        "sha256": digest.hexdigest(),
    }
