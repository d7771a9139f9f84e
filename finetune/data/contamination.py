"""Training records that hold test questions, by the decontamination of `data_prep/`.

With its defaults.

What a test record asks, a question with its context and options, is looked for in what a training
record asks: by all its sequences of 13 words, or as a whole where it has fewer, down to 8.
Sequences that stand in ten different test records, and common phrases, do not count. A record with
the same words in another order, as where options were shuffled, counts too, however few they are.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

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

Finding = dict[str, str | float | int]
"""A match in the layout of `data_prep/`'s `contamination.jsonl`.

Document, file, item, field, ratio, span_words, span, action.
"""


def find(training: Sequence[Record], tests: Mapping[str, Sequence[Record]]) -> list[Finding]:
    """Return the best match of each training record with text of a test record, in order.

    Args:
        training: records to look through.
        tests: test records by the name of their file or set.
    """
    fields = [
        ItemField(name, record.id, "asked", text_of(record))
        for name, records in tests.items()
        for record in records
    ]
    index = _index(fields)
    hasher = index.hasher()
    whole = {_bag(hasher(normal_form(field.text))[0]): field for field in fields}
    found = []
    shown = (
        Progress("test questions in training", len(training), "records")
        if processes.is_first()
        else nullcontext()
    )
    with shown as progress:
        for record in training:
            finding = _finding(record, index, hasher, whole)
            if finding is not None:
                found.append(finding)
            if progress is not None:
                progress.update()
    return found


def _index(fields: Sequence[ItemField]) -> Index:
    settings = DecontaminationSettings(eval_datasets=["tests"])
    return build_index(
        fields, settings.n_grams, settings.min_words, settings.max_item_frequency, read_phrases()
    )


def _bag(words: Hashes) -> bytes:
    """Return what texts of the same words in any order have in common."""
    return np.sort(words).tobytes()


def _finding(
    record: Record, index: Index, hasher: WordHasher, whole: Mapping[bytes, ItemField]
) -> Finding | None:
    text = normal_form(text_of(record))
    words, spans = hasher(text)
    if (same := whole.get(_bag(words))) is not None:
        file, item, ratio, (first, behind) = same.file, same.item, 1.0, (0, len(words))
    elif matches := find_matches(index, words):
        best = max(matches, key=lambda match: match.ratio)
        file, item, _, _ = index.fields[best.field]
        ratio, (first, behind) = best.ratio, best.span
    else:
        return None
    finding: Finding = {
        "document": record.id,
        "file": file,
        "item": item,
        "field": "asked",
        "ratio": round(ratio, 4),
    }
    return finding | {
        "span_words": behind - first,
        "span": text[spans[first][0] : spans[behind - 1][1]],
        "action": "drop",
    }
