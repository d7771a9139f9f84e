"""Text that a document and the items of an index have in common, less the common phrases."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.steps.decontamination.ngrams import Hashes, Index, windows

COMMON_PHRASES = Path(__file__).with_name("common_phrases.txt")


def read_phrases(path: Path = COMMON_PHRASES) -> list[str]:
    """Return the common phrases of a file, a line each; what follows a # is a comment."""
    lines = (
        line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()
    )
    return [line for line in lines if line]


@dataclass(slots=True)
class Match:
    """The text that a document and one field of an item have in common."""

    field: int
    """Number of the field in the index."""

    ratio: float
    """Fraction of the field's words that are in matching sequences."""

    span: tuple[int, int]
    """The longest run of matching words in the document: the first, and one after the last."""

    covered: np.ndarray[Any, Any]
    """For each word of the document, whether it is in a matching sequence."""


@dataclass(frozen=True, slots=True)
class _Hit:
    """A sequence that a document and a field have in common."""

    document_position: int
    """Number of its first word in the document."""
    field_position: int
    """Number of its first word in the field."""
    length: int
    """Words."""


def find_matches(index: Index, words: Hashes) -> list[Match]:
    """Return the matches of a document, given the hashes of its words, by field."""
    hits: dict[int, list[_Hit]] = defaultdict(list)
    for length, (hashes, starts, entries) in index.grams.items():
        grams = windows(words, length)
        rows = np.searchsorted(hashes, grams)
        rows[rows == len(hashes)] = 0
        for position in np.flatnonzero(hashes[rows] == grams).tolist():
            row = rows[position]
            for field, field_position in entries[starts[row] : starts[row + 1]].tolist():
                hits[field].append(_Hit(position, field_position, length))
    return [_match(index, field, hits[field], len(words)) for field in sorted(hits)]


def _match(index: Index, field: int, hits: Sequence[_Hit], num_words: int) -> Match:
    """Return the match of a field with a document of so many words."""
    in_field = np.zeros(index.fields[field][3], dtype=bool)
    in_document = np.zeros(num_words, dtype=bool)
    for hit in hits:
        in_document[hit.document_position : hit.document_position + hit.length] = True
        in_field[hit.field_position : hit.field_position + hit.length] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], in_document.view(np.int8), [0]])))
    runs = [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    longest = max(runs, key=lambda run: (run[1] - run[0], -run[0]))
    return Match(field, float(in_field.mean()), longest, in_document)
