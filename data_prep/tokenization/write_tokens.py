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
"""Time between two saved states."""

EXAMPLES = 20
"""Invalid records that are reported one by one."""


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
        task: what is encoded, and how.
        workers: number of processes.
        max_documents: stop after so many documents.
        skip_invalid: skip invalid records rather than stop at them.
        on_bytes_read: called with every chunk of standard input.

    Returns:
        The time (`time.monotonic`) of the first result; None if there was none.

    Raises:
        DataError: a record is invalid and must not be skipped, or there is no document at all.
    """
    state = job.state
    for name, output in job.outputs.items():
        output.open(task.dtype, state.outputs[name], task.tokenizer.vocab_size)
    before = list(itertools.accumulate((item.size for item in task.ranges), initial=0))
    left = math.inf
    if max_documents is not None:
        left = max_documents - next(iter(state.outputs.values())).documents
    first_result: float | None = None
    tokens = 0
    start = saved = time.monotonic()
    with (
        TokenPool(task, workers) as pool,
        Progress("tokenize", total=before[-1] or None, unit="B", scale=True) as progress,
    ):
        blocks = read_blocks(
            task.ranges,
            pool.block_bytes,
            task.keys,
            state.range_index,
            state.offset,
            on_bytes_read,
        )
        for block, result in pool.run(blocks if left else iter(())):
            left = truncate_result(result, left)
            append_result(job, task, block, result, skip_invalid)
            now = time.monotonic()
            if first_result is None:
                first_result = now
            tokens += sum(len(documents.ids) for documents in result.outputs)
            rate = tokens / 1e6 / max(now - start, 1e-3)
            progress.label = f"tokenize {tokens / 1e6:,.1f}M tokens, {rate:.2f}M tokens/s"
            progress.update(before[block.range_index] + block.position - progress.done)
            if now - saved > SAVE_SECONDS:
                for output in job.outputs.values():
                    output.writer.flush()
                job.save()
                saved = time.monotonic()
            if not left:
                break
    for output in job.outputs.values():
        output.writer.close()
    if not any(output.documents for output in state.outputs.values()):
        names = ", ".join(str(item.path) for item in task.ranges[:3])
        raise DataError(f"there is no document in {names}")
    return first_result


def append_result(
    job: TokenJob, task: Task, block: Block, result: Result, skip_invalid: bool
) -> None:
    """Append the ids of a block to the working files and update the job's state.

    Raises:
        DataError: a record is invalid and must not be skipped, or the encoder gives other ids than
            the tokenizer.
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
            f"the encoder {task.encoder.name} gives other ids than the tokenizer for"
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
    """Update the longest document of an output by those that follow it."""
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

    Return how many more documents are wanted.
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

    Lines of files are counted only here.
    """
    path = file_range.path
    if path.suffix.lower() in TABLES:
        position = f"{path}, row {block.start + invalid.number + 1:,}"
    elif path == STDIN:
        position = f"standard input, line {invalid.number + 1:,} after byte {block.start:,}"
    else:
        position = f"{path}, line {line_number(path, block.start) + invalid.number}"
    return f"{position}: {invalid.detail}"
