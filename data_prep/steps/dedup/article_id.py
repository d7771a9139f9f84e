"""One document for each article over all sources.

An abstract goes when its full text is in the corpus.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import StepSettings
from data_prep.steps.dedup.clusters import clusters_of
from data_prep.steps.global_step import (
    Array,
    Context,
    DecisionFilter,
    GlobalStep,
    load_features,
    save_array,
    save_decisions,
)
from data_prep.text.hashing import stable_hash
from galen.recipe import STRICT

IN_BETTER_SOURCE = 1
AGAIN_IN_SOURCE = 2
_PREFIXES = (
    "https://doi.org/",
    "http://doi.org/",
    "https://dx.doi.org/",
    "http://dx.doi.org/",
    "doi:",
    "pmid:",
    "pmc",
)


def id_hash(key: str, value: Any) -> int:
    """Return the hash of one identifier; case, a DOI's address and the letters PMC do not count."""
    text = str(value).strip().lower()
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return stable_hash(key, text.strip())


class _IdFeatures(PipelineStep):
    """Passes documents on; writes their identifiers (document number, hash) and lengths."""

    type = "FEATURES"
    name = "identifiers"

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        super().__init__()
        self.folder = folder
        self.keys = list(keys)

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged."""
        lengths: list[int] = []
        ids: list[tuple[int, int]] = []
        for number, document in enumerate(data):
            lengths.append(len(document.text))
            for key in self.keys:
                if value := document.metadata.get(key):
                    ids.append((number, id_hash(key, value)))
            yield document
        save_array(self.folder / f"lengths/{rank:05d}.npy", np.array(lengths, "<u4"))
        save_array(self.folder / f"ids/{rank:05d}.npy", np.array(ids, "<u8").reshape(-1, 2))


@dataclass(kw_only=True, config=STRICT)
class DedupByIdSettings(StepSettings):
    """Keep one document for each article over all sources: full text before abstract."""

    step: Literal["dedup_by_id"] = "dedup_by_id"
    keys: list[str] = Field(
        default_factory=lambda: ["pmid", "pmcid", "doi", "corpus_id"], min_length=1
    )
    """Fields of the metadata that identify an article; one in common is enough."""

    prefer: list[str] = Field(default_factory=list)
    """Names of sources, the best first; sources not named come after them in the recipe's order.

    Of one source the longest text stays.
    """

    def source_names(self) -> set[str]:
        """Return the preferred sources."""
        return set(self.prefer)


class DedupById(GlobalStep[DedupByIdSettings]):
    """Keeps the best of the documents that share an identifier.

    That is the one of the best source, within a source the longest, of equal ones the first.

    Documents are joined through any key: one with PMID and DOI joins a second with that PMID and a
    third with that DOI. Memory: about 60 bytes a document, while it decides
    (benchmarks/curate_memory.py).
    """

    name = "dedup_by_id"
    Settings = DedupByIdSettings

    def collect(self, context: Context) -> list[PipelineStep]:
        """Collect identifiers and lengths."""
        return [_IdFeatures(context.folder / "features", self.settings.keys)]

    def decide(self, context: Context) -> None:
        """Choose one document of each article."""
        lengths = load_features(context.folder / "features/lengths", context.tasks)
        starts = np.cumsum([0, *map(len, lengths)])
        ids = load_features(context.folder / "features/ids", context.tasks)
        for rows, start in zip(ids, starts, strict=False):
            rows[:, 0] += np.uint64(start)
        source_ranks = np.repeat(self._source_ranks(context.sources), [len(n) for n in lengths])
        length = np.concatenate(lengths).astype(np.int64)
        decisions = np.zeros(starts[-1], dtype=np.uint8)
        for members in clusters_of(_pairs(np.concatenate(ids))):
            best = min(members, key=lambda member: (source_ranks[member], -length[member], member))
            for member in members:
                if source_ranks[member] != source_ranks[best]:
                    decisions[member] = IN_BETTER_SOURCE
                elif member != best:
                    decisions[member] = AGAIN_IN_SOURCE
        save_decisions(context.folder / "decisions", decisions, lengths)

    def _source_ranks(self, sources: Sequence[str]) -> list[int]:
        """Return the rank of each task's source: 0 is the best."""
        order = list(dict.fromkeys([*self.settings.prefer, *sources]))
        return [order.index(source) for source in sources]

    def apply(self, context: Context) -> PipelineStep:
        """Drop the others."""
        reasons = ["in a preferred source", "duplicate in its source"]
        return DecisionFilter(
            self.name, context.folder / "decisions", reasons, context.exclusion_writer
        )


def _pairs(rows: Array) -> Array:
    """Return pairs of documents that share an identifier, shape (pairs, 2).

    Args:
        rows: document number and hash of an identifier, shape (identifiers, 2).
    """
    rows = rows[np.argsort(rows[:, 1], kind="stable")]
    equal = rows[1:, 1] == rows[:-1, 1]
    documents = rows[:, 0]
    return np.stack([documents[:-1][equal], documents[1:][equal]], axis=1).astype(np.int64)
