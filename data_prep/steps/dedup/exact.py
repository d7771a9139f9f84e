"""Exact duplicates, by identifier and by normalised text, over all sources.

datatrove's own exact deduplication handles one key per pass and settles ties between files by the
order of a heap; here both keys go in one pass and the rule is written down in `find_duplicates`.
"""

import unicodedata
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.steps.global_step import (
    KEEP,
    Context,
    CorpusStep,
    NoteWriter,
    VerdictFilter,
    load_notes,
    save_verdicts,
)
from data_prep.text.hashing import stable_hash
from data_prep.text.words import searchable

SAME_ID, SAME_TEXT = 1, 2
ROW = np.dtype([("id", "<u8"), ("text", "<u8")])


def normalised(text: str) -> str:
    """Return the normalised text by which duplicates are compared.

    Searchable, compatible characters unified, lower case, single spaces.
    """
    return " ".join(unicodedata.normalize("NFKC", searchable(text)).casefold().split())


def signature(document: Document) -> tuple[int, int]:
    """Return hashes of identifier and normalised text.

    64 bits: among 20 million documents one false duplicate is expected in about 90,000 corpora.
    """
    return stable_hash(document.id), stable_hash(normalised(document.text))


def find_duplicates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a verdict (KEEP, SAME_ID, SAME_TEXT) for each row of (id hash, text hash).

    The rows are given in the order of the inputs.

    Of documents with the same id the last stays, as a later MEDLINE file corrects an earlier one;
    of the others with the same normalised text the first stays.
    """
    verdicts = np.full(len(rows), KEEP, dtype=np.uint8)
    by_id = np.argsort(rows["id"], kind="stable")
    followed = rows["id"][by_id][:-1] == rows["id"][by_id][1:]
    verdicts[by_id[:-1][followed]] = SAME_ID
    left = np.flatnonzero(verdicts == KEEP)
    by_text = left[np.argsort(rows["text"][left], kind="stable")]
    preceded = rows["text"][by_text][1:] == rows["text"][by_text][:-1]
    verdicts[by_text[1:][preceded]] = SAME_TEXT
    return verdicts


class Duplicates(CorpusStep):
    """Drops exact duplicates.

    Memory: 16 bytes a document, 80 while it decides (benchmarks/curate_memory.py).
    """

    name = "exact_dedup"

    def notes(self, context: Context) -> list[PipelineStep]:
        """Two hashes a document."""
        return [NoteWriter("signature", context.folder / "notes", ROW, signature)]

    def decide(self, context: Context) -> None:
        """Find them."""
        notes = load_notes(context.folder / "notes", context.tasks)
        save_verdicts(context.folder / "verdicts", find_duplicates(np.concatenate(notes)), notes)

    def apply(self, context: Context) -> PipelineStep:
        """Drop them."""
        return VerdictFilter(self.name, context.folder / "verdicts", ["same id", "same text"])
