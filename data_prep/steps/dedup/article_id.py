"""One document for each article over all sources.

An abstract goes when its full text is in the corpus.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.steps.dedup.clusters import clusters_of
from data_prep.steps.global_step import (
    Context,
    CorpusStep,
    VerdictFilter,
    load_notes,
    save_array,
    save_verdicts,
)
from data_prep.text.hashing import stable_hash

_PREFIXES = (
    "https://doi.org/",
    "http://doi.org/",
    "https://dx.doi.org/",
    "http://dx.doi.org/",
    "doi:",
    "pmid:",
    "pmc",
)


def identifier_hash(key: str, value: Any) -> int:
    """Return the hash of one identifier; case, a DOI's address and the letters PMC do not count."""
    text = str(value).strip().lower()
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return stable_hash(key, text.strip())


class _IdentifierNotes(PipelineStep):
    """Passes documents on; writes their identifiers (document number, hash) and lengths."""

    type = "NOTES"
    name = "identifiers"

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        super().__init__()
        self.folder, self.keys = folder, list(keys)

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents unchanged."""
        lengths: list[int] = []
        names: list[tuple[int, int]] = []
        for number, document in enumerate(data):
            lengths.append(len(document.text))
            names += [
                (number, identifier_hash(key, value))
                for key in self.keys
                if (value := document.metadata.get(key))
            ]
            yield document
        for folder, rows in (
            ("lengths", np.array(lengths, "<u4")),
            ("names", np.array(names, "<u8").reshape(-1, 2)),
        ):
            save_array(self.folder / folder / f"{rank:05d}.npy", rows)


class Identifier(CorpusStep):
    """Keeps the best of the documents that share an identifier.

    That is the one of the best source, within a source the longest, of equal ones the first.

    Documents are joined through any key: one with PMID and DOI joins a second with that PMID and a
    third with that DOI. Memory: about 60 bytes a document, while it decides
    (benchmarks/curate_memory.py).
    """

    name = "dedup_by_id"

    def __init__(self, keys: Sequence[str], prefer: Sequence[str]) -> None:
        self.keys, self.prefer = list(keys), list(prefer)

    def notes(self, context: Context) -> list[PipelineStep]:
        """Identifiers and lengths."""
        return [_IdentifierNotes(context.folder / "notes", self.keys)]

    def decide(self, context: Context) -> None:
        """Choose one document of each article."""
        lengths = load_notes(context.folder / "notes/lengths", context.tasks)
        starts = np.cumsum([0, *map(len, lengths)])
        names = load_notes(context.folder / "notes/names", context.tasks)
        for part, start in zip(names, starts, strict=False):
            part[:, 0] += np.uint64(start)
        rows = np.concatenate(names)
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        same = rows[1:, 1] == rows[:-1, 1]
        pairs = np.stack([rows[:-1, 0][same], rows[1:, 0][same]], axis=1).astype(np.int64)
        order = [
            *self.prefer,
            *(source for source in dict.fromkeys(context.sources) if source not in self.prefer),
        ]
        rank = np.repeat(
            [order.index(source) for source in context.sources], [len(part) for part in lengths]
        )
        verdicts = np.zeros(starts[-1], dtype=np.uint8)
        length = np.concatenate(lengths).astype(np.int64)
        for members in clusters_of(pairs):
            best = min(members, key=lambda member: (rank[member], -length[member], member))
            for member in members:
                if member != best:
                    verdicts[member] = 1 if rank[member] != rank[best] else 2
        save_verdicts(context.folder / "verdicts", verdicts, lengths)

    def apply(self, context: Context) -> PipelineStep:
        """Drop the others."""
        return VerdictFilter(
            self.name, context.folder / "verdicts", ["in a better source", "again in its source"]
        )
