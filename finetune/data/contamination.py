"""Finds training records that contain test questions, by `data_prep/`'s decontamination.

The question of a test record, with context and options, is searched for in the question of each
training record: by all its sequences of 13 words, or by the entire text if it has fewer, down to 8.
Sequences in ten different test records, and common phrases, do not count. A record with the same
words in another order, as with shuffled options, counts too, however few they are.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from data_prep.steps.decontamination.items import ItemField
from data_prep.steps.decontamination.matches import find_matches, read_phrases
from data_prep.steps.decontamination.ngrams import (
    Hashes,
    Index,
    WordHasher,
    build_index,
    normal_form,
)
from data_prep.steps.decontamination.step import DecontaminationSettings
from finetune.data.record import Record, text_of
from finetune.parallel import processes
from galen.progress import Progress

Match = dict[str, str | float | int]
"""A match in the layout of `data_prep/`'s `contamination.jsonl`.

Its keys are document, file, item, field, ratio, span_words, span, action.
"""


def find(training: Sequence[Record], tests: Mapping[str, Sequence[Record]]) -> list[Match]:
    """Return the best match of each training record with text of a test record, in order.

    Args:
        training: records to search.
        tests: test records by the name of their file or set.
    """
    fields = [
        ItemField(name, record.id, "asked", text_of(record))
        for name, records in tests.items()
        for record in records
    ]
    index = _index(fields)
    hasher = index.hasher()
    by_words = {_sorted_words(hasher(normal_form(field.text))[0]): field for field in fields}
    matches = []
    progress: Progress | None = None
    with ExitStack() as stack:
        if processes.is_first():
            title = "test questions in training"
            progress = stack.enter_context(Progress(title, len(training), "records"))
        for record in training:
            match = _match(record, index, hasher, by_words)
            if match is not None:
                matches.append(match)
            if progress is not None:
                progress.update()
    return matches


def _index(fields: Sequence[ItemField]) -> Index:
    settings = DecontaminationSettings(eval_datasets=["tests"])
    return build_index(
        fields, settings.n_grams, settings.min_words, settings.max_item_frequency, read_phrases()
    )


def _sorted_words(words: Hashes) -> bytes:
    """Return a key that texts of the same words in any order share."""
    return np.sort(words).tobytes()


def _match(
    record: Record, index: Index, hasher: WordHasher, by_words: Mapping[bytes, ItemField]
) -> Match | None:
    text = normal_form(text_of(record))
    words, spans = hasher(text)
    same_words = by_words.get(_sorted_words(words))
    if same_words is not None:
        item = (same_words.file, same_words.item)
        return _as_match(record, item, 1.0, (0, len(words)), text, spans)
    matches = find_matches(index, words)
    if not matches:
        return None
    best = max(matches, key=lambda match: match.ratio)
    file, item_id, _, _ = index.fields[best.field]
    return _as_match(record, (file, item_id), best.ratio, best.span, text, spans)


def _as_match(
    record: Record,
    item: tuple[str, str],
    ratio: float,
    span: tuple[int, int],
    text: str,
    word_spans: Sequence[tuple[int, int]],
) -> Match:
    """Return a match as written to `contamination.jsonl`.

    Args:
        record: the training record.
        item: file and id of the test record.
        ratio: fraction of the test record's words that match.
        span: first matching word and the one after the last.
        text: the training record's.
        word_spans: characters of each word of the text.
    """
    first, end = span
    return {
        "document": record.id,
        "file": item[0],
        "item": item[1],
        "field": "asked",
        "ratio": round(ratio, 4),
        "span_words": end - first,
        "span": text[word_spans[first][0] : word_spans[end - 1][1]],
        "action": "drop",
    }
