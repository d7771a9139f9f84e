"""Difference of two models whose prompts were chosen on other samples, with the choice's own error.

A prompt that is best on the validation samples by chance makes its model look worse on the others,
on average. A test of the scored samples alone takes the choice for granted and finds differences
between equal models too often. Here a bootstrap draws the validation samples, too, and chooses
anew.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.intervals import SEED, Estimate

RESAMPLES = 4000
_MAX_DISTINCT = 16
_MAX_CELLS = 4_000_000

Scores = NDArray[np.float64]
"""(prompts, samples); higher is better."""


@dataclass(frozen=True, slots=True)
class ChosenDifference:
    """The second model's mean minus the first's, each under its chosen prompt."""

    difference: Estimate
    """With the 95 % interval over both kinds of samples."""
    p: float
    """Two-sided p-value of the bootstrap."""
    resampled: Scores
    """The difference in each resample, (RESAMPLES,)."""

    @property
    def standard_error(self) -> float:
        """Return the standard error of the difference."""
        return float(self.resampled.std(ddof=1))


def difference(
    validation: tuple[Scores, Scores], test: tuple[Scores, Scores], chosen: tuple[int, int]
) -> ChosenDifference:
    """Return the difference on the test samples with its error.

    Args:
        validation: scores of both models on the samples that prompts are chosen on.
        test: scores on the others.
        chosen: the prompts of both models.
    """
    source = np.random.default_rng(SEED)
    first, second = _choices(validation, source)
    drawn = np.empty(RESAMPLES)
    for pair in {*zip(first.tolist(), second.tolist(), strict=True)}:
        where = (first == pair[0]) & (second == pair[1])
        values = test[1][pair[1]] - test[0][pair[0]]
        drawn[where] = resampled_means(values, int(where.sum()), source)
    value = float((test[1][chosen[1]] - test[0][chosen[0]]).mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(2 * (tail + 1) / (RESAMPLES + 1), 1.0)
    estimate = Estimate(value, min(float(low), value), max(float(high), value))
    return ChosenDifference(estimate, float(p), drawn)


def _choices(
    validation: tuple[Scores, Scores], source: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the best prompt of each model in each resample of the validation samples."""
    samples = validation[0].shape[1]
    block = max(1, _MAX_CELLS // samples)
    chosen: list[list[NDArray[np.int64]]] = [[], []]
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        counts = source.multinomial(samples, np.full(samples, 1 / samples), size)
        for index, scores in enumerate(validation):
            chosen[index].append((counts @ scores.T).argmax(1))
    return np.concatenate(chosen[0]), np.concatenate(chosen[1])


def resampled_means(values: Scores, resamples: int, source: np.random.Generator) -> Scores:
    """Return the means of bootstrap resamples of values."""
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size <= _MAX_DISTINCT:  # how often each is drawn is multinomial
        drawn = source.multinomial(values.size, counts / values.size, resamples)
        return np.asarray(drawn @ distinct / values.size)
    block = max(1, min(resamples, _MAX_CELLS // values.size))
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = [values[source.integers(0, values.size, (size, values.size))].mean(1) for size in sizes]
    return np.concatenate(means)
