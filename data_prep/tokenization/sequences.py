"""Sequences of token ids made from texts.

Beginning and end tokens, overlapping windows, sentences, roles of messages.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
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
    """Id prepended to each document."""

    eod: int | None = None
    """Id appended to each document."""

    window: int | None = None
    """Maximum length of a sequence; None: a document is one sequence."""

    overlap: int = 0
    """Number of ids that a window shares with the previous one."""

    sentences: SentenceSplitter | None = None
    """Makes each sentence a sequence."""

    message: str | None = None
    """Template of a message with `{role}` and `{content}`; records are then conversations."""


@dataclass(slots=True)
class Documents:
    """Documents ready to be written."""

    ids: Ids
    """Concatenated ids of all documents, of the file's type."""

    lengths: Ids
    """Number of ids of each sequence."""

    counts: Ids
    """Number of sequences of each document."""


def build(
    values: Sequence[Any],
    encode: Encode,
    config: SequenceConfig,
    dtype: np.dtype[Any],
    buffer: Ids | None = None,
) -> list[Documents]:
    """Return the documents made from a key's values; of conversations, texts and roles.

    Args:
        values: texts, or lists of messages.
        encode: returns the ids of texts.
        config: how a document becomes sequences.
        dtype: of the ids.
        buffer: an array of this type to which the ids may be written, if they fit.
    """
    if config.message is not None:
        return _conversations(values, encode, config, dtype)
    if config.sentences is not None:
        split_texts = [config.sentences.split(text) for text in values]
        return [_sentences(split_texts, encode, config, dtype)]
    if config.window is not None:
        return [_windowed(values, encode, config, dtype)]
    if buffer is None or not len(buffer):
        buffer = np.empty(1024, dtype=dtype)
    return [_plain(values, encode, config, buffer)]


def _plain(values: Sequence[str], encode: Encode, config: SequenceConfig, buffer: Ids) -> Documents:
    """Make each text a document of one sequence.

    The ids are written directly to one array: this loop takes most of the time.
    """
    before = int(config.bos is not None)
    after = int(config.eod is not None)
    end = 0
    sizes = []
    capacity = len(buffer)
    for ids in encode(values):
        size = len(ids)
        sizes.append(size)
        if not size:
            continue
        start = end
        end += before + size + after
        if end > capacity:
            capacity = 2 * end
            grown = np.empty(capacity, dtype=buffer.dtype)
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
    ids = np.zeros(0, dtype=dtype)
    if sequences:
        ids = np.concatenate(sequences, dtype=dtype, casting="unsafe")
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    return Documents(ids, lengths, np.array(counts, dtype=np.int32))


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
    """Return the ids before and after a document: lists of one array, or empty."""
    return _token_array(config.bos), _token_array(config.eod)


def _token_array(token: int | None) -> list[Ids]:
    return [] if token is None else [np.array([token], dtype=np.uint32)]


def _windows(ids: Ids, window: int, overlap: int) -> list[Ids]:
    """Split a document into windows that share `overlap` ids with the previous one.

    The last one may be shorter.
    """
    starts = range(0, max(len(ids) - overlap, 1), window - overlap)
    return [ids[start : start + window] for start in starts]


def _sentences(
    texts: Sequence[list[str]], encode: Encode, config: SequenceConfig, dtype: np.dtype[Any]
) -> Documents:
    """Make each sentence a sequence.

    As in Megatron-LM, a sentence without ids is skipped, and the end token is in the last one.
    """
    encoded = iter(encode(list(chain.from_iterable(texts))))
    sequences: list[Ids] = []
    counts: list[int] = []
    front, back = _special_tokens(config)
    for sentences in texts:
        document = [ids for ids in islice(encoded, len(sentences)) if len(ids)]
        if document:
            document[0] = np.concatenate([*front, document[0]])
            document[-1] = np.concatenate([document[-1], *back])
        sequences += document
        counts.append(len(document))
    return _documents(sequences, counts, dtype)


def _conversations(
    values: Sequence[list[dict[str, str]]],
    encode: Encode,
    config: SequenceConfig,
    dtype: np.dtype[Any],
) -> list[Documents]:
    """Encode each message; return the texts and the roles.

    The role file contains the role of the message for each of its ids; for the end token, that of
    the last message.
    """
    assert config.message is not None
    template = config.message
    texts = [
        template.replace("{role}", message["role"]).replace("{content}", message["content"])
        for message in chain.from_iterable(values)
    ]
    encoded = iter(encode(texts))
    text: list[Ids] = []
    roles: list[Ids] = []
    counts: list[int] = []
    front, back = _special_tokens(config)
    for messages in values:
        ids = list(islice(encoded, len(messages)))
        ids[0] = np.concatenate([*front, ids[0]])
        ids[-1] = np.concatenate([ids[-1], *back])
        role_ids = [
            np.full(len(message_ids), ROLES[message["role"]], dtype=np.uint32)
            for message_ids, message in zip(ids, messages, strict=True)
        ]
        document = np.concatenate(ids)
        counts.append(min(len(document), 1))  # a conversation without any id has no sequence
        if len(document):
            text.append(document)
            roles.append(np.concatenate(role_ids))
    return [_documents(text, counts, dtype), _documents(roles, counts, dtype)]
