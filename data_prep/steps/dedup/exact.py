"""Exact duplicates, by identifier and by normalized text, over all sources.

datatrove's own exact deduplication handles one key per pass and settles ties between files by the
order of a heap; here both keys go in one pass and the rule is written down in `find_duplicates`.
"""

import unicodedata
from typing import Any, Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from pydantic.dataclasses import dataclass

from data_prep.steps.base import StepSettings
from data_prep.steps.global_step import (
    KEEP,
    Context,
    DecisionFilter,
    FeatureWriter,
    GlobalStep,
    load_features,
    save_decisions,
)
from data_prep.text.hashing import stable_hash
from data_prep.text.words import searchable
from galen.recipe import STRICT

SAME_ID = 1
SAME_TEXT = 2
ROW = np.dtype([("id", "<u8"), ("text", "<u8")])


def normalized(text: str) -> str:
    """Return the normalized text by which duplicates are compared.

    Searchable, compatible characters unified, lower case, single spaces.
    """
    return " ".join(unicodedata.normalize("NFKC", searchable(text)).casefold().split())


def signature(document: Document) -> tuple[int, int]:
    """Return hashes of identifier and normalized text.

    64 bits: among 20 million documents one false duplicate is expected in about 90,000 corpora.
    """
    return stable_hash(document.id), stable_hash(normalized(document.text))


def find_duplicates(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a decision (KEEP, SAME_ID, SAME_TEXT) for each row of (id hash, text hash).

    The rows are given in the order of the inputs.

    Of documents with the same id the last stays, as a later MEDLINE file corrects an earlier one;
    of the others with the same normalized text the first stays.
    """
    decisions = np.full(len(rows), KEEP, dtype=np.uint8)
    by_id = np.argsort(rows["id"], kind="stable")
    followed = rows["id"][by_id][:-1] == rows["id"][by_id][1:]
    decisions[by_id[:-1][followed]] = SAME_ID
    left = np.flatnonzero(decisions == KEEP)
    by_text = left[np.argsort(rows["text"][left], kind="stable")]
    preceded = rows["text"][by_text][1:] == rows["text"][by_text][:-1]
    decisions[by_text[1:][preceded]] = SAME_TEXT
    return decisions


@dataclass(kw_only=True, config=STRICT)
class ExactDedupSettings(StepSettings):
    """Drop documents with the id of a later one, or with the text of an earlier one."""

    step: Literal["exact_dedup"] = "exact_dedup"


class ExactDedup(GlobalStep[ExactDedupSettings]):
    """Drops exact duplicates.

    Memory: 16 bytes a document, 80 while it decides (benchmarks/curate_memory.py).
    """

    name = "exact_dedup"
    Settings = ExactDedupSettings

    def collect(self, context: Context) -> list[PipelineStep]:
        """Collect two hashes of each document."""
        return [FeatureWriter("signature", context.folder / "features", ROW, signature)]

    def decide(self, context: Context) -> None:
        """Find the duplicates."""
        features = load_features(context.folder / "features", context.tasks)
        decisions = find_duplicates(np.concatenate(features))
        save_decisions(context.folder / "decisions", decisions, features)

    def apply(self, context: Context) -> PipelineStep:
        """Drop the duplicates."""
        reasons = ["same id", "same text"]
        return DecisionFilter(
            self.name, context.folder / "decisions", reasons, context.exclusion_writer
        )
