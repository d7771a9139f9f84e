"""Rank automatic metrics by their agreement with human judges.

Kendall's τ of each metric with the mean human rating, with intervals.

    galen agreement --scores rationales.jsonl --ratings sheet.csv

The scores come from `galen rationales`, the ratings from its sheet after the judges have filled it
in: a column `id`, and a column for each judge whose name begins with `judge`. Samples without a
rating are excluded. The table shows τ with its 95 % interval (bootstrap over samples) and in what
fraction of the resamples the metric is the best; below it is the agreement between the judges.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics.intervals import SEED, Estimate
from evaluation.metrics.significance import kendall_tau
from evaluation.question_sets import jsonl
from evaluation.reporting import sheet
from evaluation.scoring.results_schema import RationaleScores, check
from galen import cli
from galen.errors import DataError

RESAMPLES = 1000


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--scores",
        type=Path,
        required=True,
        metavar="FILE",
        help="metrics of each sample, from `galen rationales`",
    )
    parser.add_argument(
        "--ratings", type=Path, required=True, metavar="FILE", help="the rating sheet, filled in"
    )
    options = parser.parse_args(argv)
    agreement = measure(options.scores, options.ratings)
    judges = agreement.judges
    print(f"{agreement.samples} samples, {len(judges)} judges")
    print(f"{'metric':<12} {'tau':>7}  95 % interval      best in")
    for metric, correlation in sorted(agreement.metrics.items(), key=lambda item: _order(item[1])):
        print(f"{metric:<12} {_described(correlation)}")
    for first, second in itertools.combinations(judges, 2):
        _print_agreement_of_judges(first, judges[first], second, judges[second])


@dataclass(frozen=True, slots=True)
class Correlation:
    """Agreement of one metric with the human ratings."""

    tau: Estimate
    """τ-b; NaN if the metric is equal for all samples."""
    best: float
    """Fraction of the resamples in which the metric has the highest τ-b of all."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of metrics with judges."""

    samples: int
    """Number of samples with both a rating and scores."""
    judges: dict[str, dict[str, float]]
    """Ratings by judge and sample id."""
    metrics: dict[str, Correlation]


def measure(scores_file: Path, ratings_file: Path) -> Agreement:
    """Return the agreement of metrics with judges.

    Args:
        scores_file: metrics of each sample, from `galen rationales`.
        ratings_file: the rating sheet.

    Raises:
        DataError: a file is damaged, or there are too few samples to compare.
    """
    judges = read_ratings(ratings_file)
    scores = read_scores(scores_file)
    human = _mean_ratings(judges, scores)
    if len(human) < 3:
        raise DataError(
            f"{ratings_file}: {len(human)} samples have both a rating and scores; at least 3 are"
            " needed"
        )
    if len(set(human.values())) == 1:
        raise DataError(
            f"{ratings_file}: the judges rate all {len(human)} samples alike, so that no metric"
            " can agree with them more than another"
        )
    names = scores[next(iter(human))]
    metrics = {name: [scores[id_][name] for id_ in human] for name in names}
    return Agreement(len(human), judges, compare(metrics, list(human.values())))


def _mean_ratings(
    judges: Mapping[str, Mapping[str, float]], scores: Mapping[str, Any]
) -> dict[str, float]:
    """Return the mean rating of each sample that has scores and at least one rating."""
    means = {}
    for id_ in scores:
        ratings = [of_judge[id_] for of_judge in judges.values() if id_ in of_judge]
        if ratings:
            means[id_] = float(np.mean(ratings))
    return means


def _order(correlation: Correlation) -> float:
    """Return the sort key: the best metric first, undefined ones last."""
    tau = correlation.tau.value
    return math.inf if math.isnan(tau) else -tau


def _described(correlation: Correlation) -> str:
    tau = correlation.tau
    if math.isnan(tau.value):
        return f"{'–':>7}  undefined: all samples have the same value"
    return f"{tau.value:7.3f}  {tau.low:6.3f} to {tau.high:6.3f}  {correlation.best:7.1%}"


def _print_agreement_of_judges(
    first: str, first_ratings: Mapping[str, float], second: str, second_ratings: Mapping[str, float]
) -> None:
    """Print τ-b of two judges on the samples that both have rated, if there are at least 3."""
    common = [id_ for id_ in first_ratings if id_ in second_ratings]
    if len(common) < 3:
        return
    tau = kendall_tau(
        [first_ratings[id_] for id_ in common], [second_ratings[id_] for id_ in common]
    )
    value = "undefined" if math.isnan(tau) else f"{tau:.3f}"
    print(f"{first} with {second}: tau {value} on {len(common)} samples")


def compare(
    metrics: Mapping[str, Sequence[float]], human: Sequence[float]
) -> dict[str, Correlation]:
    """Return each metric's agreement with the human ratings.

    A resample in which τ-b is undefined, because all its values are equal, does not count for the
    metric; a metric that is equal for all samples has τ NaN and is never the best.
    """
    source = np.random.default_rng(SEED)
    values = {name: np.asarray(scores, float) for name, scores in metrics.items()}
    ratings = np.asarray(human, float)
    taus: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(RESAMPLES):
        drawn = source.integers(0, ratings.size, ratings.size)
        for name in values:
            taus[name].append(kendall_tau(values[name][drawn], ratings[drawn]))
    drawn_taus = np.array([taus[name] for name in metrics])
    defined = np.isfinite(drawn_taus)
    best = np.argmax(np.where(defined, drawn_taus, -np.inf), axis=0)
    best[~defined.any(axis=0)] = -1
    correlations = {}
    for index, name in enumerate(metrics):
        tau = Estimate(math.nan, math.nan, math.nan)
        if defined[index].any():
            low, high = np.nanquantile(drawn_taus[index], [0.025, 0.975])
            tau = Estimate(kendall_tau(values[name], ratings), float(low), float(high))
        correlations[name] = Correlation(tau, float((best == index).mean()))
    return correlations


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Read `{"id", "metrics": {name: value}}` records.

    Raises:
        DataError: a record is wrong, or has other metrics than the first.
    """
    scores: dict[str, dict[str, float]] = {}
    for where, record in jsonl.records(path):
        check(RationaleScores, record, where, ": not the scores of a rationale")
        metrics = record["metrics"]
        first = next(iter(scores.values()), metrics)
        if first.keys() != metrics.keys():
            raise DataError(
                f"{where}: has the metrics {jsonl.shown(list(metrics))}, earlier records have"
                f" {jsonl.shown(list(first))}"
            )
        scores[record["id"]] = metrics
    return scores


def read_ratings(path: Path) -> dict[str, dict[str, float]]:
    """Read each judge's ratings by sample id from a sheet that was filled in; skips empty cells.

    Raises:
        DataError: the sheet has no column `id` or no judge, or a rating is not a number.
    """
    filled = sheet.read(path)
    names = [name for name in filled.columns if name.startswith("judge")]
    if not names:
        raise DataError(f"{path}: expected a column 'id' and a column 'judge…' for each judge")
    judges: dict[str, dict[str, float]] = {name: {} for name in names}
    for row, line in zip(filled.rows, filled.lines, strict=True):
        for name in names:
            cell = row[name].strip()
            if not cell:
                continue
            rating = _number(cell)
            if rating is None:
                raise DataError(
                    f"{path}, line {line}: column {name!r} must be a number, not"
                    f" {jsonl.shown(cell)}; leave the cell empty where there is no rating"
                )
            if row["id"] in judges[name]:
                raise DataError(
                    f"{path}, line {line}: {name} has rated {jsonl.shown(row['id'])} before"
                )
            judges[name][row["id"]] = rating
    return {name: ratings for name, ratings in judges.items() if ratings}


def _number(cell: str) -> float | None:
    """Return the number in a cell, which may have a decimal comma, or None."""
    try:
        number = float(cell.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    cli.run(main)
