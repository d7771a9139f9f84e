"""The split of the corpus that a document belongs to.

It is chosen by a hash of the identifier, so it never depends on the order or on other documents.
"""

from datatrove.data import Document

from data_prep.curation.recipe import SPLITS, SplitFractions
from data_prep.text.hashing import unit_hash


def split_of(id: str, fractions: SplitFractions) -> str:
    """Return "train", "validation" or "test"."""
    position = unit_hash(fractions.salt, id)
    limit = 0.0
    for name in SPLITS:
        limit += getattr(fractions, name)
        if position < limit:
            return name
    return SPLITS[0]  # the fractions add up to a hair less than 1


def repeats_in(split: str, document: Document) -> int:
    """Return how often a document occurs in its split.

    In the training split as often as a mixture takes it (`repeats`), else once.
    """
    return document.metadata.get("repeats", 1) if split == "train" else 1
