"""Metrics of harness tasks: intervals, and the score of each sample that models are compared by."""

import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.metrics import intervals
from evaluation.metrics.intervals import Estimate

Key = tuple[str, str]
"""Metric and filter."""

_RESAMPLES = 1000
_SLOW_RESAMPLES = 100
_SLOW = ("bleu", "chrf", "chrf++", "ter")
"""Metrics of which the harness itself draws only 100 resamples."""
_PREFERRED = ("mean", "nanmean", "perplexity", "weighted_perplexity", "bits_per_byte")
"""Aggregations in which each sample has a value of its own, the best for comparisons first."""
_RATIOS = ("weighted_perplexity", "bits_per_byte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """The metric that models are compared by."""

    metric: str
    filter: str
    aggregation: str
    """Of the samples' scores: `mean`, `macro_mean`, or one of `_PREFERRED`."""
    lower_is_better: bool

    @property
    def name(self) -> str:
        """The name in the results."""
        return metric_name(self.metric, self.filter)


def metric_name(metric: str, filter_name: str) -> str:
    """Return the name of a metric in Galen's results: the harness' without the filter `none`."""
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def primary(task: Any) -> Primary:
    """Return the primary metric of a harness task.

    It is the first metric, with the first filter, that is a mean over samples; without any, the
    first one of the other aggregations in which each sample has a value of its own, or else the
    first metric.
    """
    aggregations = {
        metric: getattr(function, "__name__", "") for metric, function in task.aggregation().items()
    }
    best = min(
        aggregations,
        key=lambda metric: (
            _PREFERRED.index(aggregations[metric])
            if aggregations[metric] in _PREFERRED
            else len(_PREFERRED)
        ),
    )
    return Primary(
        metric=best,
        filter=task._filters[0].name,
        aggregation=aggregations[best],
        lower_is_better=not task.higher_is_better().get(best, True),
    )


def group_primary(group: Any, tasks: Mapping[str, Any]) -> Primary:
    """Return the primary metric of a group: the first that it aggregates, with its first filter."""
    aggregate = (group.aggregate_metric_list or [None])[0]
    first = primary(next(iter(tasks.values())))
    if aggregate is None:
        return replace(first, aggregation="macro_mean")
    filters = aggregate.filter_list or [first.filter]
    task = next(iter(tasks.values()))
    return Primary(
        metric=aggregate.metric,
        filter=filters[0] if isinstance(filters, list) else filters,
        aggregation="mean" if aggregate.weight_by_size else "macro_mean",
        lower_is_better=not task.higher_is_better().get(aggregate.metric, True),
    )


def score(
    values: Mapping[Key, Any], by: Primary, aggregation: Mapping[str, Callable[..., Any]]
) -> dict[str, float]:
    """Return a sample's `score`, and its `weight` in a ratio.

    Args:
        values: of each metric and filter.
        by: the primary metric.
        aggregation: the task's functions by metric.
    """
    value = values.get((by.metric, by.filter))
    if value is None:
        # a document may lack a metric: then the first number that it has
        return {"score": next((number for _, number in _numbers(values)), 0.0)}
    if by.aggregation in _RATIOS:
        log_likelihood, weight = value
        return {"score": float(log_likelihood), "weight": float(weight)}
    number = as_number(value)
    if number is None:
        number = as_number(aggregation[by.metric]([value]))
    return {"score": 0.0 if number is None or math.isnan(number) else number}


def shown(values: Mapping[Key, Any]) -> dict[str, float]:
    """Return the metrics of a sample that are numbers, by name."""
    return {metric_name(*key): number for key, number in _numbers(values)}


def _numbers(values: Mapping[Key, Any]) -> list[tuple[Key, float]]:
    pairs = [(key, as_number(value)) for key, value in values.items()]
    return [(key, number) for key, number in pairs if number is not None and math.isfinite(number)]


def as_number(value: Any) -> float | None:
    """Return a number or boolean as float, None for anything else."""
    return float(value) if isinstance(value, numbers.Real | np.bool_) else None


def estimate(
    metric: str, values: Sequence[Any], aggregation: Callable[..., Any]
) -> Estimate | None:
    """Return an aggregated metric with its interval; None where it is not a number.

    A mean of zeros and ones has Wilson's interval, another mean a bootstrap interval; of other
    aggregations, the task's own function is bootstrapped.

    Args:
        metric: its name.
        values: of each document.
        aggregation: the task's function.
    """
    value = as_number(aggregation(values))
    if value is None or not math.isfinite(value):
        return None
    scores = [as_number(item) for item in values]
    if all(item is not None and math.isfinite(item) for item in scores):
        array = np.array(scores, dtype=float)
        if math.isclose(array.mean(), value, rel_tol=1e-9, abs_tol=1e-12):
            return mean(array)
    resamples = _SLOW_RESAMPLES if metric in _SLOW else _RESAMPLES
    with warnings.catch_warnings():
        # of resamples with one label only
        warnings.simplefilter("ignore")
        return intervals.statistic(list(values), value, aggregation, resamples)


def mean(values: intervals.Floats) -> Estimate:
    """Return a mean with Wilson's interval for zeros and ones, else with a bootstrap interval."""
    is_proportion = bool(np.isin(values, (0.0, 1.0)).all())
    return intervals.accuracy(values) if is_proportion else intervals.mean(values)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of samples as arrays, for the primary metric and for differences of it."""

    score: intervals.Floats
    weight: intervals.Floats
    groups: list[list[int]]
    """Indices of the samples of each task of a group."""


def scores_of(samples: Sequence[Mapping[str, Any]]) -> Scores:
    """Return the scores of samples."""
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.get("subject", ""), []).append(index)
    return Scores(
        np.array([sample["score"] for sample in samples], dtype=float),
        np.array([sample.get("weight", 1.0) for sample in samples], dtype=float),
        list(groups.values()),
    )


def primary_estimate(scores: Scores, aggregation: str) -> Estimate:
    """Return the primary metric of samples by their scores."""
    if aggregation == "macro_mean":
        return intervals.macro_mean(scores.score, scores.groups)
    if aggregation in ("perplexity", "weighted_perplexity"):
        return intervals.perplexity(-scores.score, scores.weight)
    if aggregation == "bits_per_byte":
        return intervals.bits_per_byte(-scores.score, scores.weight)
    return mean(scores.score)


def primary_difference(first: Scores, second: Scores, aggregation: str) -> Estimate:
    """Return the second model's primary metric minus the first's, by a paired bootstrap."""
    if aggregation == "macro_mean":
        return intervals.macro_mean(second.score - first.score, first.groups)
    if aggregation in ("perplexity", "weighted_perplexity"):
        return intervals.perplexity_difference(-first.score, -second.score, first.weight)
    difference = second.score - first.score
    if aggregation == "bits_per_byte":
        return intervals.bits_per_byte(-difference, first.weight)
    return intervals.accuracy_difference(first.score, second.score)
