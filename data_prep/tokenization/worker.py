"""What a tokenising process does: a block in, ids out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_prep.files.json_records import Bad, Records, parse
from data_prep.tokenization.encoders import Engine
from data_prep.tokenization.input_blocks import LONGEST_LINE, Block, LongLine, Part, read_range
from data_prep.tokenization.sequences import Documents, Ids, Shape, build
from data_prep.tokenization.shared_memory import put
from data_prep.tokenization.tokenizer import TextTokenizer

AUDIT_EVERY = 8
"""Blocks between two documents that are also encoded by the reference."""

AUDIT_CHARACTERS = 8000


@dataclass(slots=True)
class Result:
    """What came of a block."""

    outputs: list[Documents] = field(default_factory=list)
    shared: list[int | None] = field(default_factory=list)
    """For each output, how many of its ids are in the block's shared buffer.

    None: they are in the output itself.
    """

    numbers: list[int] = field(default_factory=list)
    """Line or row of the block of each document."""

    text_bytes: list[int] = field(default_factory=list)
    """Size of each document's text in UTF-8."""

    bad: list[Bad] = field(default_factory=list)
    differs: str | None = None
    """A text for which the fast engine does not give the reference's ids."""


@dataclass(slots=True)
class Task:
    """What the workers need to know."""

    parts: Sequence[Part]
    keys: Sequence[str]
    shape: Shape
    dtype: np.dtype[Any]
    tokenizer: TextTokenizer
    engine: Engine


def work(task: Task, block: Block, room: Ids) -> Result:
    """Encode the records of a block; empty lines are skipped, bad ones reported.

    The ids go into `room`, if they fit.
    """
    records = _records(task, block)
    result = Result(numbers=records.numbers, bad=records.bad)
    sizes = [[_size(value) for value in values] for values in records.fields]
    result.text_bytes = (
        sizes[0] if len(sizes) == 1 else [sum(each) for each in zip(*sizes, strict=True)]
    )
    for values in records.fields:
        result.outputs += build(
            values, task.engine.encode, task.shape, task.dtype, None if result.outputs else room
        )
    result.differs = _audit(block, records.fields, task)
    result.shared = put(result.outputs, room)
    return result


def _records(task: Task, block: Block) -> Records:
    if isinstance(block.data, LongLine):
        detail = f"{block.data.length:,} bytes in one line or row; the limit is {LONGEST_LINE:,}"
        return Records([[] for _ in task.keys], bad=[Bad(0, "too long", detail)])
    data = (
        read_range(task.parts[block.part].path, block.start, block.end)
        if block.data is None
        else block.data
    )
    return parse(data, task.keys, chat=task.shape.message is not None)


def _audit(block: Block, fields: list[list[Any]], task: Task) -> str | None:
    """Encode one text of some blocks with the reference too; return it if the ids differ."""
    if task.engine.name == "reference" or not fields or not fields[0]:
        return None
    pick = int.from_bytes(
        hashlib.blake2b(f"{block.part} {block.start}".encode(), digest_size=6).digest(), "little"
    )
    if pick % AUDIT_EVERY:
        return None
    value = fields[0][pick // AUDIT_EVERY % len(fields[0])]
    text = (value[0]["content"] if isinstance(value, list) else value)[:AUDIT_CHARACTERS]
    same = next(iter(task.engine.encode([text]))).tolist() == task.tokenizer.encode([text])[0]
    return None if same else text


def _size(value: Any) -> int:
    """Return the size of a text in UTF-8, or of the messages of a conversation."""
    if isinstance(value, list):
        return sum(_size(message["content"]) for message in value)
    text: str = value
    return len(text) if text.isascii() else len(text.encode())


def sample_texts(task: Task, block: Block) -> list[str]:
    """Return about sixteen texts of each key of a block, for comparing engines."""
    texts: list[str] = []
    for values in _records(task, block).fields:
        flat = (
            values
            if task.shape.message is None
            else [message["content"] for value in values for message in value]
        )
        texts += [text[:AUDIT_CHARACTERS] for text in flat[:: max(1, len(flat) // 16)]]
    return texts
