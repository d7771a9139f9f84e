"""A sample of the input, on which encoders are compared."""

import bisect
import contextlib
import itertools

from data_prep.tokenization.input_blocks import is_plain, line_start, read_blocks
from data_prep.tokenization.worker import Task, sample_block
from galen.errors import DataError

_POSITIONS = 8
_BLOCK_BYTES = 1 << 16


def sample_input(task: Task) -> list[str]:
    """Return some texts from eight positions of the input.

    Compressed files and tables are sampled only from their beginning.
    """
    texts: list[str] = []
    for index, offset in sorted(_positions(task)):
        ranges = task.ranges[: index + 1]
        with contextlib.suppress(DataError):  # reported when it is read
            blocks = read_blocks(ranges, _BLOCK_BYTES, task.keys, index, offset)
            for block in itertools.islice(blocks, 1):
                texts += sample_block(task, block)
    return texts


def _positions(task: Task) -> set[tuple[int, int]]:
    """Return indices of file ranges and offsets in them."""
    ends = list(itertools.accumulate(item.size for item in task.ranges))
    positions = set()
    for number in range(_POSITIONS):
        position = ends[-1] * number // _POSITIONS
        index = min(bisect.bisect_right(ends, position), len(ends) - 1)
        file_range = task.ranges[index]
        offset = 0
        if is_plain(file_range.path):
            end = file_range.start + file_range.size
            offset = line_start(file_range.path, end - (ends[index] - position), end)
        positions.add((index, offset))
    return positions
