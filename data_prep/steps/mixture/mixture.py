"""The step `mixture`: a number of copies for each document, 0 included."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_prep.steps.global_step import (
    Array,
    Context,
    CorpusStep,
    NoteWriter,
    VerdictFilter,
    load_notes,
    save_verdicts,
)
from data_prep.steps.mixture.meditron_score import citations_a_year, type_and_age_points
from data_prep.steps.options import Upsample
from data_prep.text.hashing import unit_hash
from data_prep.tokenization.token_count import token_counter

ROW = np.dtype(
    [("place", "<f8"), ("tokens", "<u4"), ("points", "<f4"), ("citations", "<f4"), ("typed", "?")]
)


class Mixture(CorpusStep):
    """Sets each document's copies by weights, up-sampling, caps and replay, in this order.

    A copy more or less is decided by a hash of the seed and the identifier, so documents come and
    go without changing the others, except through caps and replay. Memory: about 70 bytes a
    document, while it decides (benchmarks/curate_memory.py).
    """

    name = "mixture"

    def __init__(
        self,
        weights: Mapping[str, float],
        max_tokens: Mapping[str, int],
        replay: Mapping[str, float],
        upsample: Upsample | None,
        seed: int,
    ) -> None:
        self.weights, self.max_tokens, self.replay, self.upsample, self.seed = (
            weights,
            max_tokens,
            replay,
            upsample,
            seed,
        )

    def notes(self, context: Context) -> list[PipelineStep]:
        """Place, tokens and points of each document."""
        return [NoteWriter("mixture_notes", context.folder / "notes", ROW, self._row)]

    def _row(self, document: Document) -> tuple[Any, ...]:
        place, tokens, points, citations = (
            unit_hash("mixture", self.seed, document.id),
            token_counter(None)(document.text),
            0.0,
            np.nan,
        )
        if self.upsample:
            points = type_and_age_points(document.metadata, self.upsample.today)
            citations = citations_a_year(document.metadata, self.upsample.today)
        return place, tokens, points, citations, bool(document.metadata.get("publication_types"))

    def decide(self, context: Context) -> None:
        """Decide for each source, replay last."""
        notes = load_notes(context.folder / "notes", context.tasks)
        rows = np.concatenate(notes)
        names = list(dict.fromkeys(context.sources))
        source = np.repeat(
            np.array([names.index(name) for name in context.sources], dtype=np.uint16),
            [len(part) for part in notes],
        )
        wanted = np.array([self.weights.get(name, 1.0) for name in names])[source]
        if self.upsample:
            wanted *= 1 + self.upsample.factor * self._score(rows, source, names)
        copies = round_by_chance(wanted, rows["place"]).astype(np.uint16)
        for name, most in self.max_tokens.items():
            cap(copies, source == names.index(name), rows, most)
        tokens = {name: _tokens(copies, source == n, rows) for n, name in enumerate(names)}
        others = sum(count for name, count in tokens.items() if name not in self.replay)
        for name, share in self.replay.items():
            cap(
                copies,
                source == names.index(name),
                rows,
                round(others * share / (1 - sum(self.replay.values()))),
            )
            tokens[name] = _tokens(copies, source == names.index(name), rows)
        save_verdicts(context.folder / "verdicts", copies, notes)
        context.report.update(
            tokens=tokens, copies={str(n): int((copies == n).sum()) for n in np.unique(copies)}
        )

    def _score(self, rows: Array, source: Array, names: list[str]) -> Array:
        """Return the points with those for citations a year.

        +1 in the upper quarter, +0.5 in the middle half.
        """
        assert self.upsample is not None
        points, citations = rows["points"].astype(np.float64), rows["citations"]
        named = self.upsample.sources
        taking_part = (
            rows["typed"]
            if named is None
            else np.isin(source, [names.index(name) for name in named])
        )
        if len(known := citations[~np.isnan(citations) & taking_part]):
            low, high = np.quantile(known, [0.25, 0.75])
            quarter = np.where(citations > high, 1.0, np.where(citations > low, 0.5, 0.0))
            points += np.where((points > 0) & ~np.isnan(citations), quarter, 0.0)
        return np.where(taking_part, points, 0.0)

    def apply(self, context: Context) -> PipelineStep:
        """Drop those without a copy, mark the others."""
        return _Copies(self.name, context.folder / "verdicts", [])


def _tokens(copies: Array, those: Array, rows: Array) -> int:
    """Return the tokens of a source's copies."""
    return int((copies[those].astype(np.int64) * rows["tokens"][those]).sum())


def round_by_chance(wanted: Array, place: Array) -> Array:
    """Return whole numbers whose mean is `wanted`; `place` in [0, 1) decides."""
    whole = np.floor(wanted)
    return whole + (place < wanted - whole)


def cap(copies: Array, those: Array, rows: Array, most: int) -> None:
    """Set copies to 0 for a source's documents that would go over `most` tokens.

    These are, in the order of their places, all from the first one that would.
    """
    members = np.flatnonzero(those & (copies > 0))
    members = members[np.argsort(rows["place"][members], kind="stable")]
    total = np.cumsum(copies[members].astype(np.int64) * rows["tokens"][members])
    copies[members[total > most]] = 0


class _Copies(VerdictFilter):
    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop the next document."""
        copies = next(self._next)
        if copies > 1:
            doc.metadata["copies"] = copies
        return copies > 0 or (False, "not taken")
