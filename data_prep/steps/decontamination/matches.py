"""Text that a document shares with the items of an index, less the common phrases."""

from collections import defaultdict
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
    """What of one field of an item was found in a document."""

    field: int
    """Number of the field in the index."""

    ratio: float
    """Share of the field's words that stand in matching sequences."""

    span: tuple[int, int]
    """The longest run of matching words in the document: the first, and one after the last."""

    covered: np.ndarray[Any, Any]
    """For each word of the document, whether it stands in a matching sequence."""


def find_matches(index: Index, words: Hashes) -> list[Match]:
    """Return the matches of a document, given the hashes of its words, by field."""
    places: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for length, (hashes, starts, entries) in index.grams.items():
        grams = windows(words, length)
        at = np.searchsorted(hashes, grams)
        at[at == len(hashes)] = 0
        for place in np.flatnonzero(hashes[at] == grams).tolist():
            for field, position in entries[starts[at[place]] : starts[at[place] + 1]].tolist():
                places[field].append((place, position, length))
    return [_match(index, field, found, len(words)) for field, found in sorted(places.items())]


def _match(index: Index, field: int, found: list[tuple[int, int, int]], size: int) -> Match:
    there, here = np.zeros(index.fields[field][3], dtype=bool), np.zeros(size, dtype=bool)
    for place, position, length in found:
        here[place : place + length] = True
        there[position : position + length] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], here.view(np.int8), [0]])))
    runs = [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return Match(
        field, float(there.mean()), max(runs, key=lambda run: (run[1] - run[0], -run[0])), here
    )
