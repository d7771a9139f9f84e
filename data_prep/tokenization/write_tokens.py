"""Encodes the input of a job and appends the ids to its working files, block by block."""

import itertools
import logging
import math
import time
from collections.abc import Callable

import numpy as np

from data_prep.files.json_records import InvalidRecord
from data_prep.tokenization.input_blocks import (
    STDIN,
    TABLES,
    Block,
    FileRange,
    line_number,
    read_blocks,
)
from data_prep.tokenization.job import OutputState, TokenJob
from data_prep.tokenization.sequences import Documents
from data_prep.tokenization.worker import Result, Task
from data_prep.tokenization.worker_pool import TokenPool
from galen.errors import DataError
from galen.progress import Progress

logger = logging.getLogger(__name__)

SAVE_SECONDS = 5.0
"""Time between two saves of the state."""

EXAMPLES = 20
"""Number of invalid records that are logged and listed in the manifest."""


def write_tokens(
    job: TokenJob,
    task: Task,
    workers: int,
    *,
    max_documents: int | None = None,
    skip_invalid: bool = False,
    on_bytes_read: Callable[[bytes], None] | None = None,
) -> float | None:
    """Encode the input of a task into the working files of `job`, resuming from its state.

    Args:
        job: its outputs and state.
        task: the input, the tokenizer and the encoder.
        workers: number of processes.
        max_documents: stop after so many documents.
        skip_invalid: skip invalid records rather than stop at them.
        on_bytes_read: called with every chunk of standard input.

    Returns:
        The time (`time.monotonic`) of the first result, None without results.

    Raises:
        DataError: a record is invalid and must not be skipped, or the input has no documents.
    """
    state = job.state
    for name, output in job.outputs.items():
        output.open(task.dtype, state.outputs[name], task.tokenizer.vocab_size)
    remaining = math.inf
    if max_documents is not None:
        remaining = max_documents - next(iter(state.outputs.values())).documents
    total = sum(item.size for item in task.ranges)
    with (
        TokenPool(task, workers) as pool,
        Progress("tokenize", total=total or None, unit="B", scale=True) as progress,
    ):
        meter = _Meter(task, progress)
        blocks = read_blocks(
            task.ranges,
            pool.block_bytes,
            task.keys,
            state.range_index,
            state.offset,
            on_bytes_read,
        )
        for block, result in pool.run(blocks if remaining else iter(())):
            remaining = truncate_result(result, remaining)
            append_result(job, task, block, result, skip_invalid)
            meter.update(block, result)
            if meter.is_save_due():
                _save(job)
            if not remaining:
                break
    for output in job.outputs.values():
        output.writer.close()
    if not any(output.documents for output in state.outputs.values()):
        names = ", ".join(str(item.path) for item in task.ranges[:3])
        raise DataError(f"{names}: no documents")
    return meter.first_result


class _Meter:
    """Progress and rate of a job, and when its state is to be saved."""

    def __init__(self, task: Task, progress: Progress) -> None:
        self.first_result: float | None = None
        """Time of the first result."""
        self._progress = progress
        sizes = (item.size for item in task.ranges)
        self._range_starts = list(itertools.accumulate(sizes, initial=0))
        """Bytes on the disk before each file range."""
        self._tokens = 0
        self._start = time.monotonic()
        self._saved = self._start

    def update(self, block: Block, result: Result) -> None:
        """Count a block that is done."""
        now = time.monotonic()
        if self.first_result is None:
            self.first_result = now
        self._tokens += sum(len(documents.ids) for documents in result.outputs)
        millions = self._tokens / 1e6
        rate = millions / max(now - self._start, 1e-3)
        self._progress.label = f"tokenize {millions:,.1f}M tokens, {rate:.2f}M tokens/s"
        position = self._range_starts[block.range_index] + block.position
        self._progress.update(position - self._progress.done)

    def is_save_due(self) -> bool:
        """Return whether the state is to be saved now."""
        now = time.monotonic()
        if now - self._saved <= SAVE_SECONDS:
            return False
        self._saved = now
        return True


def _save(job: TokenJob) -> None:
    for output in job.outputs.values():
        output.writer.flush()
    job.save()


def append_result(
    job: TokenJob, task: Task, block: Block, result: Result, skip_invalid: bool
) -> None:
    """Append the ids of a block to the working files and update the job's state.

    Raises:
        DataError: a record is invalid and must not be skipped, or the encoder and the tokenizer
            give different ids.
    """
    state = job.state
    file_range = task.ranges[block.range_index]
    if result.invalid and not skip_invalid:
        raise DataError(locate(file_range, block, result.invalid[0]))
    for invalid in result.invalid:
        state.skipped[invalid.reason] = state.skipped.get(invalid.reason, 0) + 1
        if len(state.examples) < EXAMPLES:
            state.examples.append(locate(file_range, block, invalid))
            logger.warning(f"skipped: {state.examples[-1]}")
    if result.mismatch is not None:
        raise DataError(
            f"the encoder {task.encoder.name} and the tokenizer give different ids for"
            f" {result.mismatch[:60]!r}; start again with --encoder reference"
        )
    for (name, output), documents in zip(job.outputs.items(), result.outputs, strict=True):
        output_state = state.outputs[name]
        _update_longest(output_state, documents)
        output.writer.add(documents.ids, documents.lengths, documents.counts)
        output.tally.add(documents.ids)
        output_state.documents = output.writer.documents
        output_state.sequences = output.writer.sequences
        output_state.tokens = output.writer.tokens
    state.range_index = block.range_index
    state.offset = block.end
    state.bytes += sum(result.text_bytes)


def _update_longest(state: OutputState, documents: Documents) -> None:
    """Update the longest document of an output with its next documents."""
    if not len(documents.counts):
        return
    sequence_ends = np.concatenate([[0], np.cumsum(documents.lengths, dtype=np.int64)])
    document_ends = sequence_ends[np.concatenate([[0], np.cumsum(documents.counts)])]
    sizes = np.diff(document_ends)
    if sizes.max() > state.longest:
        state.longest = int(sizes.max())
        state.longest_document = state.documents + int(sizes.argmax())


def truncate_result(result: Result, limit: float) -> float:
    """Drop the documents after the first `limit`, and the invalid records after these.

    Return the number of documents that remain to be written.
    """
    if len(result.numbers) < limit:
        return limit - len(result.numbers)
    count = int(limit)
    last = result.numbers[count - 1]
    result.numbers = result.numbers[:count]
    result.text_bytes = result.text_bytes[:count]
    result.invalid = [invalid for invalid in result.invalid if invalid.number < last]
    for documents in result.outputs:
        documents.counts = documents.counts[:count]
        documents.lengths = documents.lengths[: int(documents.counts.sum())]
        documents.ids = documents.ids[: int(documents.lengths.sum())]
    return 0


def locate(file_range: FileRange, block: Block, invalid: InvalidRecord) -> str:
    """Return the position of an invalid record and its error.

    The line number is determined only here, by reading the file again.
    """
    path = file_range.path
    if path.suffix.lower() in TABLES:
        position = f"{path}, row {block.start + invalid.number + 1:,}"
    elif path == STDIN:
        position = f"standard input, line {invalid.number + 1:,} after byte {block.start:,}"
    else:
        position = f"{path}, line {line_number(path, block.start) + invalid.number}"
    return f"{position}: {invalid.detail}"
