"""Rank automatic metrics by their agreement with human judges.

Kendall's τ of each metric with the mean human rating, with intervals.

    galen agreement --scores rationales.jsonl --ratings sheet.csv

The scores come from `galen rationales`, the ratings from the sheet that it wrote, filled in:
one column `id`, one column a judge whose name begins with `judge`. Samples without a rating are
left out. The table has τ with its 95 % interval (bootstrap over samples) and how often, over the
resamples, the metric is the best; the judges' agreement with each other is below it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    for metric, (tau, best) in sorted(agreement.metrics.items(), key=_worst_last):
        if math.isnan(tau.value):
            print(f"{metric:<12} {'–':>7}  undefined: all samples have the same value")
        else:
            print(f"{metric:<12} {tau.value:7.3f}  {tau.low:6.3f} to {tau.high:6.3f}  {best:7.1%}")
    for first, second in itertools.combinations(judges, 2):
        common = [id_ for id_ in judges[first] if id_ in judges[second]]
        if len(common) > 2:
            between = kendall_tau(
                [judges[first][id_] for id_ in common], [judges[second][id_] for id_ in common]
            )
            shown = "undefined" if math.isnan(between) else f"{between:.3f}"
            print(f"{first} with {second}: tau {shown} on {len(common)} samples")


@dataclass(frozen=True)
class Agreement:
    """Agreement of metrics with judges."""

    samples: int
    """Number of samples with both a rating and scores."""
    judges: dict[str, dict[str, float]]
    """Ratings by judge and sample id."""
    metrics: dict[str, tuple[Estimate, float]]
    """For each metric, what `compare` returns."""


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
    ids = [id_ for id_ in scores if any(id_ in ratings for ratings in judges.values())]
    if len(ids) < 3:
        raise DataError(
            f"{ratings_file}: {len(ids)} samples have both a rating and scores; at least 3 are"
            " needed"
        )
    human = [
        float(np.mean([ratings[id_] for ratings in judges.values() if id_ in ratings]))
        for id_ in ids
    ]
    if len(set(human)) == 1:
        raise DataError(
            f"{ratings_file}: the judges rate all {len(ids)} samples alike, so that no metric"
            " can agree with them more than another"
        )
    metrics = {metric: [scores[id_][metric] for id_ in ids] for metric in scores[ids[0]]}
    return Agreement(len(ids), judges, compare(metrics, human))


def _worst_last(entry: tuple[str, tuple[Estimate, float]]) -> float:
    tau = entry[1][0].value
    return math.inf if math.isnan(tau) else -tau


def compare(
    metrics: Mapping[str, Sequence[float]], human: Sequence[float]
) -> dict[str, tuple[Estimate, float]]:
    """Return each metric's τ-b with the human ratings, and how often it is the best metric.

    The second figure is the fraction of resamples in which the metric has the highest τ-b. A
    resample in which τ-b is undefined, because all its values are equal, does not count for the
    metric; of a metric that is equal for all samples everything is NaN, and it is never the best.
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
    found = {}
    for place, name in enumerate(metrics):
        tau = low = high = math.nan
        if defined[place].any():
            tau = kendall_tau(values[name], ratings)
            low, high = map(float, np.nanquantile(drawn_taus[place], [0.025, 0.975]))
        found[name] = Estimate(tau, low, high), float((best == place).mean())
    return found


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Read `{"id", "metrics": {name: value}}` records.

    Raises:
        DataError: a record is wrong, or has other metrics than the first.
    """
    found: dict[str, dict[str, float]] = {}
    for where, record in jsonl.records(path):
        check(RationaleScores, record, where, ": not the scores of a rationale")
        metrics = record["metrics"]
        first = next(iter(found.values()), metrics)
        if first.keys() != metrics.keys():
            raise DataError(
                f"{where}: has the metrics {jsonl.shown(list(metrics))}, earlier records have"
                f" {jsonl.shown(list(first))}"
            )
        found[record["id"]] = metrics
    return found


def read_ratings(path: Path) -> dict[str, dict[str, float]]:
    """Read the ratings of each judge by sample from a filled-in sheet; empty cells are left out.

    Raises:
        DataError: the sheet has no column `id` or no judge, or a rating is no number.
    """
    filled = sheet.read(path)
    names = [name for name in filled.columns if name.startswith("judge")]
    if not names:
        raise DataError(f"{path}: a column 'id' and a column 'judge…' for each judge are wanted")
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
