"""From verdicts on pairs of answers to win rates, strengths, and the judge's own biases."""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from evaluation.judging.judge import Reply
from evaluation.judging.pairs import CRITERIA, FIRST, OVERALL, SECOND, TIE, Pair
from evaluation.metrics import bradley_terry, intervals, significance
from evaluation.metrics.bradley_terry import Comparison
from evaluation.metrics.intervals import Estimate
from evaluation.scoring.results_schema import Checked, Interval, Number
from galen.errors import DataError

_OUTCOMES = {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of a pair in one order."""

    pair: Pair
    choices: Mapping[str, str]
    """By criterion: 1, 2 or tie."""

    def outcome(self, model: str, criterion: str = OVERALL) -> float:
        """Return 1 where a model wins, 0 where it loses, 0.5 for a tie."""
        value = _OUTCOMES[self.choices[criterion]]
        return value if model == self.pair.first else 1 - value


class _Match(Checked):
    first: str
    second: str
    conversations: Annotated[int, Field(ge=1)]
    wins: Annotated[int, Field(ge=0)]
    ties: Annotated[int, Field(ge=0)]
    losses: Annotated[int, Field(ge=0)]
    win_rate: Interval
    by_criterion: dict[str, Interval]
    corrected_p: Number
    win_probability_at_equal_length: Number


class _OrderBias(Checked):
    first_wins: Number
    changed_by_order: Number


class _LengthBias(Checked):
    log_odds_per_factor_e: Interval


class Summary(Checked):
    """A file of `galen judge-pairs`."""

    task: str
    judge: str
    matches: Annotated[list[_Match], Field(min_length=1)]
    strengths: dict[str, Interval]
    order_bias: _OrderBias
    length_bias: _LengthBias


def verdicts(pairs: Sequence[Pair], replies: Sequence[Reply]) -> list[Verdict]:
    """Return the verdicts on pairs that the judge has decided in both orders.

    Raises:
        DataError: there is none.
    """
    both = zip(pairs, replies, strict=True)
    decided = {
        (pair.id, pair.first, pair.second): Verdict(pair, reply.value)
        for pair, reply in both
        if reply.value is not None
    }
    complete = [
        verdict
        for (id_, first, second), verdict in decided.items()
        if (id_, second, first) in decided
    ]
    if not complete:
        raise DataError(
            "the judge has decided no pair of answers in both orders; see replies.jsonl"
        )
    return complete


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return win rates, strengths and biases, of JSON types."""
    models = sorted({verdict.pair.first for verdict in verdicts})
    matches = [
        _match(first, second, verdicts) for first, second in itertools.combinations(models, 2)
    ]
    corrected = significance.holm({f"{m['first']}\n{m['second']}": m["p"] for m in matches})
    for match in matches:
        match["corrected_p"] = corrected[f"{match['first']}\n{match['second']}"]
    fitted = bradley_terry.fit([_comparison(verdict) for verdict in verdicts])
    for match in matches:
        match["win_probability_at_equal_length"] = fitted.win_probability(
            match["first"], match["second"]
        )
    return {
        "models": models,
        "conversations": len({verdict.pair.id for verdict in verdicts}),
        "matches": matches,
        "strengths": {name: _plain(value) for name, value in fitted.strengths.items()},
        "order_bias": _order_bias(verdicts) | {"log_odds": _plain(fitted.order)},
        "length_bias": {"log_odds_per_factor_e": _plain(fitted.length)},
    }


def _comparison(verdict: Verdict) -> Comparison:
    pair = verdict.pair
    lengths = [len(pair.answers[name]) + 1 for name in (pair.first, pair.second)]
    return Comparison(
        pair.id,
        pair.first,
        pair.second,
        _OUTCOMES[verdict.choices[OVERALL]],
        math.log(lengths[0] / lengths[1]),
    )


def mean_outcomes(
    first: str, second: str, verdicts: Sequence[Verdict], criterion: str = OVERALL
) -> dict[str, float]:
    """Return by conversation the mean outcome of the first model over both orders."""
    outcomes: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        if {verdict.pair.first, verdict.pair.second} == {first, second}:
            outcomes[verdict.pair.id].append(verdict.outcome(first, criterion))
    return {id_: float(np.mean(values)) for id_, values in outcomes.items()}


def _match(first: str, second: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how the first model does against the second.

    It wins a conversation with a mean above one half: better in both orders, or in one and tied in
    the other. A verdict that follows the order is a tie.
    """
    means = list(mean_outcomes(first, second, verdicts).values())
    if not means:
        raise DataError(f"{first} and {second} share no judged conversation")
    by_criterion = {}
    for criterion in CRITERIA:
        values = list(mean_outcomes(first, second, verdicts, criterion).values())
        by_criterion[criterion] = _plain(_rate(values))
    return {
        "first": first,
        "second": second,
        "conversations": len(means),
        "wins": sum(mean > 0.5 for mean in means),
        "ties": sum(mean == 0.5 for mean in means),
        "losses": sum(mean < 0.5 for mean in means),
        "win_rate": _plain(_rate(means)),
        "by_criterion": by_criterion,
        "p": significance.paired_p_value([1 - mean for mean in means], means),
    }


def _rate(values: Sequence[float]) -> Estimate:
    """Return a win rate with its interval: Wilson's where all values are the same."""
    same = len(set(values)) == 1
    return intervals.accuracy(values) if same else intervals.fraction(values)


def _order_bias(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return how often the first of two answers wins, and how often the order decides."""
    decided = [verdict for verdict in verdicts if verdict.choices[OVERALL] != TIE]
    first_wins = [verdict.choices[OVERALL] == FIRST for verdict in decided]
    by_key = {(item.pair.id, item.pair.first, item.pair.second): item for item in verdicts}
    flipped = []
    for (id_, first, second), verdict in by_key.items():
        if first < second:
            other = by_key[id_, second, first]
            flipped.append(verdict.outcome(first) != other.outcome(first))
    return {
        "first_wins": float(np.mean(first_wins)) if first_wins else 0.5,
        "changed_by_order": float(np.mean(flipped)),
    }


def _plain(estimate: Estimate) -> dict[str, float]:
    return dataclasses.asdict(estimate)
