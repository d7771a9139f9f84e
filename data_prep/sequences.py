"""From texts to the sequences of documents: beginning and end tokens, overlapping windows, sentences, roles of messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_prep.sentences import SentenceSplitter

Ids = np.ndarray[Any, Any]
Encode = Callable[[Sequence[str]], list[Ids]]

ROLES = {"system": 0, "user": 1, "human": 1, "prompter": 1, "question": 1, "assistant": 2, "gpt": 2, "answer": 2}
"""Number of a role in the role file; losses are for 2, what the model says."""

MESSAGE = "<|im_start|>{role}\n{content}<|im_end|>\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """What is made of a document's ids."""

    bos: int | None = None
    eod: int | None = None
    window: int | None = None
    overlap: int = 0
    sentences: SentenceSplitter | None = None
    """Makes each sentence a sequence."""

    message: str | None = None
    """How a message is written, with `{role}` and `{content}`: a record is then a conversation."""


@dataclass(slots=True)
class Documents:
    """Documents ready to be written."""

    ids: list[Ids] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Of all sequences."""

    counts: list[int] = field(default_factory=list)
    """Sequences of each document."""


def build(values: Sequence[Any], encode: Encode, shape: Shape) -> list[Documents]:
    """Return the documents of a key's values; of conversations, their text and then their roles."""
    if shape.message is not None:
        return _conversations(values, encode, shape)
    if shape.sentences is not None:
        return [_sentences([shape.sentences.split(text) for text in values], encode, shape)]
    result = Documents()
    ids, lengths, counts = result.ids, result.lengths, result.counts
    front, back = _marks(shape)
    extra = sum(map(len, front + back))
    for text in encode(values):
        size = len(text)
        if not size:
            counts.append(0)
        elif shape.window is not None and size + extra > shape.window:
            windows = _windows(np.concatenate([*front, text, *back]), shape.window, shape.overlap)
            ids += windows
            lengths += map(len, windows)
            counts.append(len(windows))
        else:
            ids += front
            ids.append(text)
            ids += back
            lengths.append(size + extra)
            counts.append(1)
    return [result]


def _marks(shape: Shape) -> tuple[list[Ids], list[Ids]]:
    return tuple([] if mark is None else [np.array([mark], dtype=np.uint32)] for mark in (shape.bos, shape.eod))  # type: ignore[return-value]


def _windows(ids: Ids, window: int, overlap: int) -> list[Ids]:
    """Cut a document into windows that share `overlap` ids with the one before; the last may be shorter."""
    starts = range(0, max(len(ids) - overlap, 1), window - overlap)
    return [ids[start : start + window] for start in starts]


def _sentences(texts: Sequence[list[str]], encode: Encode, shape: Shape) -> Documents:
    """Encode sentence by sentence, each a sequence; as in Megatron-LM, one without ids is left out, and the end token goes to the last."""
    encoded = iter(encode([sentence for sentences in texts for sentence in sentences]))
    result = Documents()
    front, back = _marks(shape)
    for sentences in texts:
        parts = [ids for _ in sentences if len(ids := next(encoded))]
        if parts:
            parts[0] = np.concatenate([*front, parts[0]])
            parts[-1] = np.concatenate([parts[-1], *back])
        result.ids += parts
        result.lengths += map(len, parts)
        result.counts.append(len(parts))
    return result


def _conversations(values: Sequence[list[dict[str, str]]], encode: Encode, shape: Shape) -> list[Documents]:
    """Encode message by message; the role file has the role of its message for each id, the end token the role of the last message."""
    assert shape.message is not None
    flat = [
        shape.message.replace("{role}", message["role"]).replace("{content}", message["content"])
        for messages in values
        for message in messages
    ]
    encoded = iter(encode(flat))
    text, roles = Documents(), Documents()
    front, back = _marks(shape)
    for messages in values:
        parts = [next(encoded) for _ in messages]
        numbers = [ROLES[message["role"]] for message in messages]
        parts[0] = np.concatenate([*front, parts[0]])
        parts[-1] = np.concatenate([parts[-1], *back])
        said = [np.full(len(part), number, dtype=np.uint32) for part, number in zip(parts, numbers, strict=True)]
        for documents, ids in ((text, np.concatenate(parts)), (roles, np.concatenate(said))):
            documents.ids.append(ids)
            documents.lengths.append(len(ids))
            documents.counts.append(1)
    return [text, roles]
