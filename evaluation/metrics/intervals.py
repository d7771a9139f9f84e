"""Metrics with 95 % intervals: accuracy, perplexity, paired differences between two models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
SEED = 1234
_NORMAL_QUANTILE = 1.959963984540054  # of 0.975, for 95 % intervals

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return `{"value", "low", "high"}` as plain floats."""
        return {"value": float(self.value), "low": float(self.low), "high": float(self.high)}


def accuracy(correct: ArrayLike) -> Estimate:
    """Return the accuracy with Wilson's score interval.

    Wilson 1927, J. Am. Stat. Assoc. 22:209.
    """
    right = _floats(correct)
    n = right.size
    p = float(right.mean())
    z = _NORMAL_QUANTILE
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # exactly 0 and 1 at the ends, where rounding leaves 3e-17
    low = float(center - half) if p > 0 else 0.0
    high = float(center + half) if p < 1 else 1.0
    return Estimate(p, low, high)


def mean(values: ArrayLike) -> Estimate:
    """Return a mean over samples with a percentile bootstrap interval over samples."""
    array = _floats(values)
    return Estimate(float(array.mean()), *_middle(_resampled(array.size, _mean_of(array))))


def fraction(values: ArrayLike) -> Estimate:
    """Return the mean of fractions of 0 to 1, with a bootstrap interval.

    Where all are 0, or all are 1, which leaves a bootstrap without width, the interval is Wilson's.
    """
    array = _floats(values)
    is_constant = np.all(array == 0) or np.all(array == 1)
    return accuracy(array) if is_constant else mean(array)


def clustered_mean(sums: ArrayLike, counts: ArrayLike) -> Estimate:
    """Return the mean of values that come in clusters, with a bootstrap interval over clusters.

    Clusters without values are left out. Where all values are 0, or all are 1, which leaves a
    bootstrap without width, the interval is Wilson's for the number of clusters.

    Args:
        sums: the sum of each cluster's values.
        counts: the number of its values.
    """
    count = _floats(counts)
    means = _floats(sums)[count > 0] / count[count > 0]
    if np.all(means == 0) or np.all(means == 1):
        return accuracy(means)
    return _ratio(_floats(sums)[count > 0], count[count > 0], lambda values: values)


def macro_mean(values: ArrayLike, groups: Sequence[Sequence[int]]) -> Estimate:
    """Return the mean of the groups' means, equally weighted, with a bootstrap interval.

    Samples are resampled within each group.
    """
    array = _floats(values)
    by_group = [array[list(indices)] for indices in groups]
    resampled = [
        _resampled(group.size, _mean_of(group), seed)
        for seed, group in enumerate(by_group, start=SEED)
    ]
    value = float(np.mean([group.mean() for group in by_group]))
    return Estimate(value, *_middle(np.mean(resampled, axis=0)))


def perplexity(nll: ArrayLike, tokens: ArrayLike) -> Estimate:
    """Return exp(sum nll / sum tokens) over documents, with a percentile bootstrap interval.

    The resampled units are documents.

    Args:
        nll: each document's negative log-likelihood in nats.
        tokens: each document's number of scored tokens.
    """
    return _ratio(nll, tokens, np.exp)


def bits_per_byte(nll: ArrayLike, n_bytes: ArrayLike) -> Estimate:
    """Return bits per byte, which unlike perplexity are comparable between tokenizers."""
    return _ratio(nll, n_bytes, lambda nats: nats / np.log(2))


def accuracy_difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Return the second model's accuracy minus the first's, with a paired bootstrap interval.

    Both have the same samples in the same order.
    """
    return mean(_floats(second) - _floats(first))


def perplexity_difference(
    first_nll: ArrayLike, second_nll: ArrayLike, tokens: ArrayLike
) -> Estimate:
    """Return the second model's perplexity minus the first's, with a paired bootstrap interval.

    Both have the same documents in the same order.
    """
    first = _floats(first_nll)
    second = _floats(second_nll)
    count = _floats(tokens)

    def difference(drawn: NDArray[np.int64]) -> Floats:
        total = count[drawn].sum(axis=1)
        return np.exp(second[drawn].sum(axis=1) / total) - np.exp(first[drawn].sum(axis=1) / total)

    resampled = _resampled(count.size, difference)
    value = np.exp(second.sum() / count.sum()) - np.exp(first.sum() / count.sum())
    return Estimate(float(value), *_middle(resampled))


def statistic(
    samples: Sequence[Any], value: float, function: Callable[[list[Any]], Any], resamples: int
) -> Estimate:
    """Return a statistic of samples with a percentile bootstrap interval.

    Args:
        samples: what the function takes a list of.
        value: the function of all samples.
        function: returns a number; resamples in which it is undefined are left out.
        resamples: number of draws.
    """
    source = np.random.default_rng(SEED)
    drawn = []
    for _ in range(resamples):
        indices = source.integers(0, len(samples), len(samples))
        try:
            drawn.append(float(function([samples[index] for index in indices])))
        except (ArithmeticError, ValueError):
            continue
    finite = np.array(drawn)[np.isfinite(drawn)]
    if finite.size == 0:
        return Estimate(value, value, value)
    return Estimate(value, *_middle(finite))


def _ratio(
    numerator: ArrayLike, denominator: ArrayLike, then: Callable[[Floats], Floats]
) -> Estimate:
    top = _floats(numerator)
    bottom = _floats(denominator)

    def ratio(drawn: NDArray[np.int64]) -> Floats:
        return then(top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1))

    resampled = _resampled(top.size, ratio)
    return Estimate(float(then(top.sum() / bottom.sum())), *_middle(resampled))


def _resampled(
    samples: int, statistic: Callable[[NDArray[np.int64]], Floats], seed: int = SEED
) -> Floats:
    """Return a statistic over `RESAMPLES` bootstrap draws of samples.

    Models with the same number of samples get the same draws.

    `statistic` gets indices of samples, (draws, samples), and returns one value per draw. It is
    called on blocks of draws, so that memory stays small.
    """
    source = np.random.default_rng(seed)
    block = max(min(RESAMPLES, 4_000_000 // samples), 1)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    return np.concatenate(
        [statistic(source.integers(0, samples, (size, samples))) for size in sizes]
    )


def _mean_of(array: Floats) -> Callable[[NDArray[np.int64]], Floats]:
    return lambda drawn: array[drawn].mean(axis=1)


def _middle(resampled: Floats) -> tuple[float, float]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def _floats(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"a metric needs a flat list of at least one sample, not the shape {array.shape}"
        )
    return array
