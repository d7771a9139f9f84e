"""The step `mixture`: a number of repeats for each document, 0 included."""

from datetime import date
from typing import Annotated, Any, Literal

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from data_prep.steps.base import StepSettings
from data_prep.steps.global_step import (
    Array,
    Context,
    DecisionFilter,
    FeatureWriter,
    GlobalStep,
    load_features,
    save_decisions,
)
from data_prep.steps.mixture.meditron_score import citations_per_year, type_and_age_score
from data_prep.text.hashing import unit_hash
from data_prep.tokenization.token_count import token_counter
from galen.recipe import STRICT

ROW = np.dtype(
    [("position", "<f8"), ("tokens", "<u4"), ("score", "<f4"), ("citations", "<f4"), ("typed", "?")]
)


@dataclass(kw_only=True, config=STRICT)
class Upsample:
    """MEDITRON's repeats by score: 1 + factor × score, rounded by chance."""

    factor: float = Field(default=1.0, ge=0)
    """Multiplies the score."""

    reference_date: date = date(2023, 7, 15)
    """Date from which an article's age is counted."""

    sources: list[str] | None = None
    """Sources that take part; null: of each source the documents that name a publication type."""


@dataclass(kw_only=True, config=STRICT)
class MixtureSettings(StepSettings):
    """How often each document is taken.

    By weights, caps and replay, with a hash of the seed and the identifier.
    """

    step: Literal["mixture"] = "mixture"
    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(default_factory=dict)
    """Repeats by source name, up to 1,000, 1 where not named.

    0.0004 takes that fraction of the documents, 2.5 two or three repeats of each.
    """

    max_tokens: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    """Cap by source name.

    Documents are taken in the order of their hash until the next one would go over it.
    """

    replay: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Fraction of all tokens that a source shall make up, by source name.

    Reached with complete documents, sampled evenly.
    """

    upsample: Upsample | None = None
    """Repeats by MEDITRON's score; null: none."""

    seed: int = 42
    """Another seed takes other documents."""

    @model_validator(mode="after")
    def _check_replay(self) -> "MixtureSettings":
        if sum(self.replay.values()) >= 1:
            raise ValueError(
                f"replay makes up {sum(self.replay.values()):g} of all tokens: it must leave some"
                " to the other sources"
            )
        return self

    def source_names(self) -> set[str]:
        """Return the sources that weights, caps, replay and up-sampling name."""
        names = {*self.weights, *self.max_tokens, *self.replay}
        if self.upsample is not None:
            names |= set(self.upsample.sources or ())
        return names


class Mixture(GlobalStep[MixtureSettings]):
    """Sets each document's repeats by weights, up-sampling, caps and replay, in this order.

    A repeat more or less is decided by a hash of the seed and the identifier, so documents come and
    go without changing the others, except through caps and replay. Memory: about 70 bytes a
    document, while it decides (benchmarks/curate_memory.py).
    """

    name = "mixture"
    Settings = MixtureSettings

    def collect(self, context: Context) -> list[PipelineStep]:
        """Collect position, tokens and score of each document."""
        return [FeatureWriter("mixture_features", context.folder / "features", ROW, self._row)]

    def _row(self, document: Document) -> tuple[Any, ...]:
        position = unit_hash("mixture", self.settings.seed, document.id)
        tokens = token_counter(None)(document.text)
        score = 0.0
        citations = np.nan
        if self.settings.upsample:
            reference_date = self.settings.upsample.reference_date
            score = type_and_age_score(document.metadata, reference_date)
            citations = citations_per_year(document.metadata, reference_date)
        is_typed = bool(document.metadata.get("publication_types"))
        return position, tokens, score, citations, is_typed

    def decide(self, context: Context) -> None:
        """Decide for each source, replay last."""
        features = load_features(context.folder / "features", context.tasks)
        rows = np.concatenate(features)
        names = list(dict.fromkeys(context.sources))
        source_numbers = np.array([names.index(name) for name in context.sources], dtype=np.uint16)
        source = np.repeat(source_numbers, [len(task_rows) for task_rows in features])
        mean_repeats = np.array([self.settings.weights.get(name, 1.0) for name in names])[source]
        if self.settings.upsample:
            score = _upsampling_score(self.settings.upsample, rows, source, names)
            mean_repeats *= 1 + self.settings.upsample.factor * score
        repeats = round_by_chance(mean_repeats, rows["position"]).astype(np.uint16)
        masks = {name: source == number for number, name in enumerate(names)}
        for name, max_tokens in self.settings.max_tokens.items():
            cap(repeats, masks[name], rows, max_tokens)
        tokens = self._replay(repeats, masks, rows)
        save_decisions(context.folder / "decisions", repeats, features)
        histogram = {str(n): int((repeats == n).sum()) for n in np.unique(repeats)}
        context.report.update(tokens=tokens, repeats=histogram)

    def _replay(self, repeats: Array, masks: dict[str, Array], rows: Array) -> dict[str, int]:
        """Cap the replayed sources at their fractions; return the tokens of all sources."""
        tokens = {name: _tokens(repeats, mask, rows) for name, mask in masks.items()}
        replay = self.settings.replay
        others = sum(count for name, count in tokens.items() if name not in replay)
        for name, fraction in replay.items():
            max_tokens = round(others * fraction / (1 - sum(replay.values())))
            cap(repeats, masks[name], rows, max_tokens)
            tokens[name] = _tokens(repeats, masks[name], rows)
        return tokens

    def apply(self, context: Context) -> PipelineStep:
        """Drop those without a repeat, mark the others."""
        return _RepeatFilter(self.name, context.folder / "decisions", [], context.exclusion_writer)


def _upsampling_score(upsample: Upsample, rows: Array, source: Array, names: list[str]) -> Array:
    """Return the scores of all documents with those for citations a year.

    +1 in the upper quarter, +0.5 in the middle half.
    """
    score = rows["score"].astype(np.float64)
    citations = rows["citations"]
    takes_part = rows["typed"]
    if upsample.sources is not None:
        takes_part = np.isin(source, [names.index(name) for name in upsample.sources])
    is_cited = ~np.isnan(citations)
    known = citations[is_cited & takes_part]
    if len(known):
        low, high = np.quantile(known, [0.25, 0.75])
        citation_score = np.where(citations > high, 1.0, np.where(citations > low, 0.5, 0.0))
        score += np.where((score > 0) & is_cited, citation_score, 0.0)
    return np.where(takes_part, score, 0.0)


def _tokens(repeats: Array, mask: Array, rows: Array) -> int:
    """Return the tokens of a source's repeats."""
    return int((repeats[mask].astype(np.int64) * rows["tokens"][mask]).sum())


def round_by_chance(mean: Array, position: Array) -> Array:
    """Return integers that are `mean` on average; `position` in [0, 1) decides."""
    floor = np.floor(mean)
    return floor + (position < mean - floor)


def cap(repeats: Array, mask: Array, rows: Array, max_tokens: int) -> None:
    """Set repeats to 0 for a source's documents that would exceed `max_tokens`.

    These are, in the order of their positions, all from the first one that would.
    """
    members = np.flatnonzero(mask & (repeats > 0))
    members = members[np.argsort(rows["position"][members], kind="stable")]
    total = np.cumsum(repeats[members].astype(np.int64) * rows["tokens"][members])
    repeats[members[total > max_tokens]] = 0


class _RepeatFilter(DecisionFilter):
    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop the next document."""
        repeats = next(self._decisions)
        if repeats == 0:
            return False, "not sampled"
        if repeats > 1:
            doc.metadata["repeats"] = repeats
        return True
