"""Memory that the workers share with the writing process.

It holds the ids: a pipe would copy them several times.
"""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.tokenization.sequences import Documents, Ids


class SharedIds:
    """Buffers of equal size for the ids of one block each; created before the workers are forked.

    Args:
        count: number of buffers.
        size: bytes of each; a page takes memory only once it has been written to.
        dtype: of the ids.
    """

    def __init__(self, count: int, size: int, dtype: np.dtype[Any]) -> None:
        self._memory = np.frombuffer(mmap.mmap(-1, count * size), dtype=dtype)
        self._length = size // dtype.itemsize

    def buffer(self, number: int) -> Ids:
        """Return one of the buffers."""
        return self._memory[number * self._length : (number + 1) * self._length]


def copy_to_shared(documents: Sequence[Documents], buffer: Ids) -> list[int | None]:
    """Move the ids of a block's outputs into `buffer`, one after the other.

    Return the number of ids of each output in it; None for an output that does not fit and keeps
    its ids.
    """
    counts: list[int | None] = []
    for output in documents:
        count = len(output.ids)
        if count > len(buffer):
            counts.append(None)
            continue
        if not np.may_share_memory(output.ids, buffer):  # else they are in it already
            buffer[:count] = output.ids
        output.ids = buffer[:0].copy()
        buffer = buffer[count:]
        counts.append(count)
    return counts


def view_shared(documents: Sequence[Documents], counts: Sequence[int | None], buffer: Ids) -> None:
    """Set the ids that `copy_to_shared` moved, as views of `buffer`."""
    for output, count in zip(documents, counts, strict=True):
        if count is not None:
            output.ids = buffer[:count]
            buffer = buffer[count:]
