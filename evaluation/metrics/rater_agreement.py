"""Agreement of raters on yes and no: macro F1 against several others, Cohen's kappa.

The macro F1 is that of HealthBench's meta-evaluation (arXiv 2505.08775, section 7): each pair of
the rater's label and another's counts once; F1 of "met" and of "not met" have the same weight.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.intervals import RESAMPLES, SEED, Estimate

Counts = NDArray[np.int64]
"""(records, 4): pairs of the rater's label and another's: yes/yes, yes/no, no/yes, no/no."""


@dataclass(frozen=True, slots=True)
class Rating:
    """A rater's label, and those of others for the same thing."""

    own: bool
    others: tuple[bool, ...]


def pair_counts(ratings: Sequence[Rating]) -> Counts:
    """Return the pairs of labels of each record, (records, 4)."""
    counts = np.zeros((len(ratings), 4), np.int64)
    for row, rating in zip(counts, ratings, strict=True):
        for other in rating.others:
            row[2 * (not rating.own) + (not other)] += 1
    return counts


def macro_f1(counts: Counts) -> float:
    """Return the mean of the F1 of yes and of no; NaN where there is no pair.

    A class that neither side ever gives has no F1; the mean is then that of the other class.
    """
    both_yes, only_own, only_other, both_no = counts.reshape(-1, 4).sum(0)
    errors = only_own + only_other
    scores = [2 * right / (2 * right + errors) for right in (both_yes, both_no) if right + errors]
    return float(np.mean(scores)) if scores else float("nan")


def macro_f1_estimate(counts: Counts, clusters: Sequence[str]) -> Estimate:
    """Return the macro F1 with a 95 % bootstrap interval over clusters of records.

    Args:
        counts: of each record.
        clusters: of each record the cluster, such as its conversation; records of one cluster are
            drawn together.
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((int(index.max()) + 1, 4), np.int64)
    np.add.at(sums, index, counts)
    source = np.random.default_rng(SEED)
    draws = min(RESAMPLES, 2000)
    values = [macro_f1(sums[source.integers(0, len(sums), len(sums))].sum(0)) for _ in range(draws)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(macro_f1(counts), float(low), float(high))


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return Cohen's kappa of two raters; NaN where chance alone explains full agreement.

    Cohen 1960, Educ. Psychol. Meas. 20:37.

    Args:
        first: category that a rater gives to each item.
        second: the other rater's.
    """
    pairs = list(zip(first, second, strict=True))
    observed = sum(a == b for a, b in pairs) / len(pairs)
    counts = Counter(a for a, _ in pairs)
    others = Counter(b for _, b in pairs)
    expected = sum(counts[name] * others[name] for name in counts) / len(pairs) ** 2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")
