"""From texts to the sequences of documents.

Beginning and end tokens, overlapping windows, sentences, roles of messages.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.files.json_records import ROLES
from data_prep.text.sentences import SentenceSplitter

Ids = np.ndarray[Any, Any]
Encode = Callable[[Sequence[str]], Iterable[Ids]]

MESSAGE = "<|im_start|>{role}\n{content}<|im_end|>\n"


@dataclass(frozen=True, slots=True)
class SequenceConfig:
    """How a document becomes sequences."""

    bos: int | None = None
    """Id put before each document."""

    eod: int | None = None
    """Id put after each document."""

    window: int | None = None
    """Most ids of a sequence; None: a document is one sequence."""

    overlap: int = 0
    """Ids that a window shares with the one before."""

    sentences: SentenceSplitter | None = None
    """Makes each sentence a sequence."""

    message: str | None = None
    """How a message is written, with `{role}` and `{content}`: a record is then a conversation."""


@dataclass(slots=True)
class Documents:
    """Documents ready to be written."""

    ids: Ids
    """Ids of all documents back to back, of the file's type."""

    lengths: Ids
    """Number of ids of each sequence."""

    counts: Ids
    """Number of sequences of each document."""


def build(
    values: Sequence[Any],
    encode: Encode,
    config: SequenceConfig,
    dtype: np.dtype[Any],
    room: Ids | None = None,
) -> list[Documents]:
    """Return the documents of a key's values; of conversations, their text and then their roles.

    Args:
        values: texts, or lists of messages.
        encode: gives the ids of texts.
        config: how a document becomes sequences.
        dtype: of the ids.
        room: an array of this type in which the ids may be put, if they fit.
    """
    if config.message is not None:
        return _conversations(values, encode, config, dtype)
    if config.sentences is not None:
        return [
            _sentences([config.sentences.split(text) for text in values], encode, config, dtype)
        ]
    if config.window is not None:
        return [_windowed(values, encode, config, dtype)]
    if room is None or not len(room):
        room = np.empty(1024, dtype=dtype)
    return [_plain(values, encode, config, room)]


def _plain(values: Sequence[str], encode: Encode, config: SequenceConfig, buffer: Ids) -> Documents:
    """Make each text a document of one sequence.

    The ids go straight into one array, since most time goes into this.
    """
    before = int(config.bos is not None)
    after = int(config.eod is not None)
    end = 0
    sizes = []
    room = len(buffer)
    for ids in encode(values):
        size = len(ids)
        sizes.append(size)
        if not size:
            continue
        start = end
        end += before + size + after
        if end > room:
            room = 2 * end
            grown = np.empty(room, dtype=buffer.dtype)
            grown[:start] = buffer[:start]
            buffer = grown
        buffer[start + before : end - after] = ids
    filled = np.array(sizes, dtype=np.int32) > 0
    lengths = np.array(sizes, dtype=np.int32)[filled] + np.int32(before + after)
    ends = np.cumsum(lengths)
    if config.bos is not None:
        buffer[ends - lengths] = config.bos
    if config.eod is not None:
        buffer[ends - 1] = config.eod
    return Documents(buffer[:end], lengths, filled.astype(np.int32))


def _documents(sequences: Sequence[Ids], counts: Sequence[int], dtype: np.dtype[Any]) -> Documents:
    ids = (
        np.concatenate(sequences, dtype=dtype, casting="unsafe")
        if sequences
        else np.zeros(0, dtype=dtype)
    )
    return Documents(
        ids,
        np.array([len(part) for part in sequences], dtype=np.int32),
        np.array(counts, dtype=np.int32),
    )


def _windowed(
    values: Sequence[str], encode: Encode, config: SequenceConfig, dtype: np.dtype[Any]
) -> Documents:
    assert config.window is not None
    sequences: list[Ids] = []
    counts: list[int] = []
    front, back = _special_tokens(config)
    for ids in encode(values):
        windows: list[Ids] = []
        if len(ids):
            document = np.concatenate([*front, ids, *back])
            windows = _windows(document, config.window, config.overlap)
        sequences += windows
        counts.append(len(windows))
    return _documents(sequences, counts, dtype)


def _special_tokens(config: SequenceConfig) -> tuple[list[Ids], list[Ids]]:
    """Return what comes before and after a document's ids: an array each, or nothing."""
    return _token_array(config.bos), _token_array(config.eod)


def _token_array(token: int | None) -> list[Ids]:
    return [] if token is None else [np.array([token], dtype=np.uint32)]


def _windows(ids: Ids, window: int, overlap: int) -> list[Ids]:
    """Cut a document into windows that share `overlap` ids with the one before.

    The last may be shorter.
    """
    starts = range(0, max(len(ids) - overlap, 1), window - overlap)
    return [ids[start : start + window] for start in starts]


def _sentences(
    texts: Sequence[list[str]], encode: Encode, config: SequenceConfig, dtype: np.dtype[Any]
) -> Documents:
    """Encode sentence by sentence, each a sequence.

    As in Megatron-LM, one without ids is left out, and the end token goes to the last.
    """
    encoded = iter(encode([sentence for sentences in texts for sentence in sentences]))
    sequences: list[Ids] = []
    counts: list[int] = []
    front, back = _special_tokens(config)
    for sentences in texts:
        parts = [ids for _ in sentences if len(ids := next(encoded))]
        if parts:
            parts[0] = np.concatenate([*front, parts[0]])
            parts[-1] = np.concatenate([parts[-1], *back])
        sequences += parts
        counts.append(len(parts))
    return _documents(sequences, counts, dtype)


def _conversations(
    values: Sequence[list[dict[str, str]]],
    encode: Encode,
    config: SequenceConfig,
    dtype: np.dtype[Any],
) -> list[Documents]:
    """Encode message by message.

    The role file has the role of its message for each id, the end token the role of the last
    message.
    """
    assert config.message is not None
    flat = [
        config.message.replace("{role}", message["role"]).replace("{content}", message["content"])
        for messages in values
        for message in messages
    ]
    encoded = iter(encode(flat))
    text: list[Ids] = []
    roles: list[Ids] = []
    front, back = _special_tokens(config)
    for messages in values:
        parts = [next(encoded) for _ in messages]
        numbers = [ROLES[message["role"]] for message in messages]
        parts[0] = np.concatenate([*front, parts[0]])
        parts[-1] = np.concatenate([parts[-1], *back])
        role_ids = [
            np.full(len(part), number, dtype=np.uint32)
            for part, number in zip(parts, numbers, strict=True)
        ]
        text.append(np.concatenate(parts))
        roles.append(np.concatenate(role_ids))
    counts = [min(len(ids), 1) for ids in text]  # a conversation without any id has no sequence
    return [
        _documents([ids for ids in sequences if len(ids)], counts, dtype)
        for sequences in (text, roles)
    ]
