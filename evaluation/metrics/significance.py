"""Significance: paired tests on the same samples, and correction for multiple tests."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

PERMUTATIONS = 10_000
SEED = 1234


def paired_p_value(first: ArrayLike, second: ArrayLike) -> float:
    """Return the two-sided p-value of two models scoring alike on the same samples, in order.

    Where every sample is right or wrong this is the exact McNemar test (McNemar 1947, Psychometrika
    12:153; a binomial test on the samples that only one model gets right). Means over several runs
    are compared by randomly swapping the two models' scores of each sample (Fisher's permutation
    test), with `PERMUTATIONS` draws.
    """
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0
    if np.all(np.abs(differences) == 1):
        return _binomial(int((differences > 0).sum()), differences.size)
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], (PERMUTATIONS, differences.size))
    extreme = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12
    return float((extreme.sum() + 1) / (PERMUTATIONS + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values with Holm's correction for multiple tests (1979, Scand. J. Stat. 6:65).

    If those below 0.05 are called significant, the chance of any error is at most 5 %.
    """
    order = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(order):
        largest = max(largest, min((len(order) - rank) * p_values[name], 1.0))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's τ-b, from -1 to 1; NaN where one side is constant.

    Kendall 1945, Biometrika 33:239.
    """
    a = np.sign(np.subtract.outer(np.asarray(first, float), np.asarray(first, float)))
    b = np.sign(np.subtract.outer(np.asarray(second, float), np.asarray(second, float)))
    above = np.triu_indices(len(np.asarray(first)), 1)
    a = a[above]
    b = b[above]
    scale = math.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum() / scale) if scale else math.nan


def _binomial(successes: int, trials: int) -> float:
    """Return the exact two-sided p-value of so many successes at a chance of one half."""
    tail = sum(math.comb(trials, k) for k in range(min(successes, trials - successes) + 1))
    return min(2 * tail / 2**trials, 1.0)
