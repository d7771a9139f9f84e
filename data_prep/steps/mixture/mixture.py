"""The step `mixture`: a number of repeats for each document, 0 included."""

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
from data_prep.steps.mixture.meditron_score import citations_per_year, type_and_age_score
from data_prep.steps.options import Upsample
from data_prep.text.hashing import unit_hash
from data_prep.tokenization.token_count import token_counter

ROW = np.dtype(
    [("place", "<f8"), ("tokens", "<u4"), ("score", "<f4"), ("citations", "<f4"), ("typed", "?")]
)


class Mixture(CorpusStep):
    """Sets each document's repeats by weights, up-sampling, caps and replay, in this order.

    A repeat more or less is decided by a hash of the seed and the identifier, so documents come and
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
        """Place, tokens and score of each document."""
        return [NoteWriter("mixture_notes", context.folder / "notes", ROW, self._row)]

    def _row(self, document: Document) -> tuple[Any, ...]:
        place, tokens, score, citations = (
            unit_hash("mixture", self.seed, document.id),
            token_counter(None)(document.text),
            0.0,
            np.nan,
        )
        if self.upsample:
            score = type_and_age_score(document.metadata, self.upsample.reference_date)
            citations = citations_per_year(document.metadata, self.upsample.reference_date)
        return place, tokens, score, citations, bool(document.metadata.get("publication_types"))

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
        repeats = round_by_chance(wanted, rows["place"]).astype(np.uint16)
        for name, most in self.max_tokens.items():
            cap(repeats, source == names.index(name), rows, most)
        tokens = {name: _tokens(repeats, source == n, rows) for n, name in enumerate(names)}
        others = sum(count for name, count in tokens.items() if name not in self.replay)
        for name, share in self.replay.items():
            cap(
                repeats,
                source == names.index(name),
                rows,
                round(others * share / (1 - sum(self.replay.values()))),
            )
            tokens[name] = _tokens(repeats, source == names.index(name), rows)
        save_verdicts(context.folder / "verdicts", repeats, notes)
        context.report.update(
            tokens=tokens, repeats={str(n): int((repeats == n).sum()) for n in np.unique(repeats)}
        )

    def _score(self, rows: Array, source: Array, names: list[str]) -> Array:
        """Return the score with those for citations a year.

        +1 in the upper quarter, +0.5 in the middle half.
        """
        assert self.upsample is not None
        score, citations = rows["score"].astype(np.float64), rows["citations"]
        named = self.upsample.sources
        taking_part = (
            rows["typed"]
            if named is None
            else np.isin(source, [names.index(name) for name in named])
        )
        if len(known := citations[~np.isnan(citations) & taking_part]):
            low, high = np.quantile(known, [0.25, 0.75])
            quarter = np.where(citations > high, 1.0, np.where(citations > low, 0.5, 0.0))
            score += np.where((score > 0) & ~np.isnan(citations), quarter, 0.0)
        return np.where(taking_part, score, 0.0)

    def apply(self, context: Context) -> PipelineStep:
        """Drop those without a repeat, mark the others."""
        return _RepeatFilter(self.name, context.folder / "verdicts", [])


def _tokens(repeats: Array, those: Array, rows: Array) -> int:
    """Return the tokens of a source's repeats."""
    return int((repeats[those].astype(np.int64) * rows["tokens"][those]).sum())


def round_by_chance(wanted: Array, place: Array) -> Array:
    """Return whole numbers whose mean is `wanted`; `place` in [0, 1) decides."""
    whole = np.floor(wanted)
    return whole + (place < wanted - whole)


def cap(repeats: Array, those: Array, rows: Array, most: int) -> None:
    """Set repeats to 0 for a source's documents that would go over `most` tokens.

    These are, in the order of their places, all from the first one that would.
    """
    members = np.flatnonzero(those & (repeats > 0))
    members = members[np.argsort(rows["place"][members], kind="stable")]
    total = np.cumsum(repeats[members].astype(np.int64) * rows["tokens"][members])
    repeats[members[total > most]] = 0


class _RepeatFilter(VerdictFilter):
    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop the next document."""
        repeats = next(self._next)
        if repeats > 1:
            doc.metadata["repeats"] = repeats
        return repeats > 0 or (False, "not taken")
