"""Strengths of models from comparisons of their answers, corrected for order and length.

Bradley and Terry 1952, Biometrika 39:324, as a logistic regression: the answer of model a, shown
first, beats that of b with probability sigmoid(s_a - s_b + order + length x log(length_a /
length_b)). The length term is as in length-controlled AlpacaEval (Dubois et al. 2024, arXiv
2404.04475), with the logarithm of the lengths' ratio. A tie counts as half a win for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.intervals import SEED, Estimate

RESAMPLES = 500
_RIDGE = 1e-2
"""Penalty on squared coefficients: keeps the strengths of a model that always wins finite."""
_ITERATIONS = 50
_CONVERGED = 1e-9
_NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verdict on two answers."""

    id: str
    """Of the conversation."""
    first: str
    """Model whose answer was shown first."""
    second: str
    outcome: float
    """1 where the first is better, 0 where the second is, 0.5 for a tie."""
    log_length_ratio: float
    """Logarithm of the first answer's length divided by the second's."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The model that explains comparisons."""

    strengths: dict[str, Estimate]
    """Log-odds to beat an average model, in any order and at equal length; their mean is 0."""
    order: Estimate
    """Log-odds that the first of two equal answers wins; 0 without order bias."""
    length: Estimate
    """Log-odds for a factor e in length; 0 without length bias."""

    def win_probability(self, first: str, second: str) -> float:
        """Return the probability to beat another model, in any order and at equal length."""
        return _sigmoid(self.strengths[first].value - self.strengths[second].value)


def fit(comparisons: Sequence[Comparison]) -> Fit:
    """Return strengths, order and length bias with 95 % intervals.

    They are those of a bootstrap over conversations; those of the strengths are at least as wide as
    those of the likelihood: where one model always wins, each resample says the same.
    """
    models = sorted({name for item in comparisons for name in (item.first, item.second)})
    design, outcomes = _design(comparisons, models)
    value = _solve(design, outcomes)
    clusters = [item.id for item in comparisons]
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    number = int(index.max()) + 1
    source = np.random.default_rng(SEED)
    drawn = []
    for _ in range(RESAMPLES):
        counts = np.bincount(source.integers(0, number, number), minlength=number)
        drawn.append(_solve(design, outcomes, counts[index].astype(float), start=value))
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    half = _NORMAL_QUANTILE * _standard_errors(design, value)
    half[-2:] = 0  # where the order always decides, Wald's interval of it is far too wide
    low = np.minimum(low, value - half)
    high = np.maximum(high, value + half)
    estimates = [
        Estimate(float(middle), float(lower), float(upper))
        for middle, lower, upper in zip(value, low, high, strict=True)
    ]
    return Fit(dict(zip(models, estimates, strict=False)), estimates[-2], estimates[-1])


def _design(
    comparisons: Sequence[Comparison], models: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a row per comparison: 1 and -1 at the models, 1 for the order, the lengths."""
    column = {name: number for number, name in enumerate(models)}
    design = np.zeros((len(comparisons), len(models) + 2))
    for row, item in zip(design, comparisons, strict=True):
        row[column[item.first]] += 1
        row[column[item.second]] -= 1
        row[-2] = 1
        row[-1] = item.log_length_ratio
    return design, np.array([item.outcome for item in comparisons])


def _solve(
    design: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    start: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the coefficients of a ridge logistic regression, by Newton's method."""
    if weights is None:
        weights = np.ones(len(outcomes))
    coefficients = np.zeros(design.shape[1]) if start is None else start.copy()
    penalty = _RIDGE * np.eye(design.shape[1])
    for _ in range(_ITERATIONS):
        probability = 1 / (1 + np.exp(-design @ coefficients))
        gradient = design.T @ (weights * (outcomes - probability)) - _RIDGE * coefficients
        curvature = weights * probability * (1 - probability)
        step = np.linalg.solve(design.T @ (curvature[:, None] * design) + penalty, gradient)
        coefficients += step
        if np.abs(step).max() < _CONVERGED:
            break
    strengths = coefficients[:-2]
    return np.concatenate([strengths - strengths.mean(), coefficients[-2:]])


def _standard_errors(
    design: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the coefficients' standard errors by the curvature of the penalized likelihood."""
    probability = 1 / (1 + np.exp(-design @ coefficients))
    curvature = probability * (1 - probability)
    size = len(coefficients)
    covariance = np.linalg.inv(design.T @ (curvature[:, None] * design) + _RIDGE * np.eye(size))
    centered = np.eye(size)
    centered[:-2, :-2] -= 1 / (size - 2)  # strengths have a mean of 0
    return np.asarray(np.sqrt(np.diag(centered @ covariance @ centered.T)))


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))
