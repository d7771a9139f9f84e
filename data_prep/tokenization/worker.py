"""Work of a tokenizing process: it turns a block into token ids."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from data_prep.files.json_records import InvalidRecord, Records, parse
from data_prep.tokenization.encoders import Encoder
from data_prep.tokenization.input_blocks import LONGEST_LINE, Block, FileRange, LongLine, read_range
from data_prep.tokenization.sequences import Documents, Ids, SequenceConfig, build
from data_prep.tokenization.shared_memory import copy_to_shared
from data_prep.tokenization.tokenizer import TextTokenizer

AUDIT_EVERY = 8
"""Blocks between two documents that are also encoded by the reference."""

AUDIT_CHARACTERS = 8000


@dataclass(slots=True)
class Result:
    """Result of a block."""

    outputs: list[Documents] = field(default_factory=list)
    shared: list[int | None] = field(default_factory=list)
    """For each output, how many of its ids are in the block's shared buffer.

    None: they are in the output itself.
    """

    numbers: list[int] = field(default_factory=list)
    """Line or row of the block of each document."""

    text_bytes: list[int] = field(default_factory=list)
    """Size of each document's text in UTF-8."""

    invalid: list[InvalidRecord] = field(default_factory=list)
    mismatch: str | None = None
    """A text for which the encoder and the reference give different ids."""


@dataclass(slots=True)
class Task:
    """Work of all workers of a job."""

    ranges: Sequence[FileRange]
    keys: Sequence[str]
    sequence_config: SequenceConfig
    dtype: np.dtype[Any]
    tokenizer: TextTokenizer
    encoder: Encoder


def work(task: Task, block: Block, buffer: Ids) -> Result:
    """Encode the records of a block; empty lines are skipped, invalid ones reported.

    The ids are written to `buffer`, if they fit.
    """
    records = _records(task, block)
    result = Result(numbers=records.numbers, invalid=records.invalid)
    for record in zip(*records.fields, strict=True):
        result.text_bytes.append(sum(map(_size, record)))
    for values in records.fields:
        free_buffer = None if result.outputs else buffer
        result.outputs += build(
            values, task.encoder.encode, task.sequence_config, task.dtype, free_buffer
        )
    result.mismatch = _audit(block, records.fields, task)
    result.shared = copy_to_shared(result.outputs, buffer)
    return result


def _records(task: Task, block: Block) -> Records:
    if isinstance(block.data, LongLine):
        detail = f"{block.data.length:,} bytes in one line or row; the limit is {LONGEST_LINE:,}"
        return Records([[] for _ in task.keys], invalid=[InvalidRecord(0, "too long", detail)])
    data = block.data
    if data is None:
        data = read_range(task.ranges[block.range_index].path, block.start, block.end)
    return parse(data, task.keys, chat=task.sequence_config.message is not None)


def _audit(block: Block, fields: list[list[Any]], task: Task) -> str | None:
    """Encode one text of some blocks with the reference too; return it if the ids differ."""
    if task.encoder.name == "reference" or not fields or not fields[0]:
        return None
    key = f"{block.range_index} {block.start}".encode()
    pick = int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "little")
    if pick % AUDIT_EVERY:
        return None
    value = fields[0][pick // AUDIT_EVERY % len(fields[0])]
    text = (value[0]["content"] if isinstance(value, list) else value)[:AUDIT_CHARACTERS]
    ids = next(iter(task.encoder.encode([text])))
    expected = task.tokenizer.encode([text])[0]
    return None if ids.tolist() == expected else text


def _size(value: Any) -> int:
    """Return the size of a text in UTF-8, or of the messages of a conversation."""
    if isinstance(value, list):
        return sum(_size(message["content"]) for message in value)
    text: str = value
    return len(text) if text.isascii() else len(text.encode())


def sample_block(task: Task, block: Block) -> list[str]:
    """Return about sixteen texts of each key of a block, for comparing encoders."""
    texts: list[str] = []
    for values in _records(task, block).fields:
        contents = values
        if task.sequence_config.message is not None:
            contents = [message["content"] for message in chain.from_iterable(values)]
        step = max(1, len(contents) // 16)
        texts += [text[:AUDIT_CHARACTERS] for text in contents[::step]]
    return texts
