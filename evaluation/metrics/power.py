"""The smallest difference between two models that a test set could show.

For right and wrong answers by the exact power of McNemar's test; with many samples on which the
models differ by its approximation with continuity correction (Fleiss, Levin, Paik 2003, Statistical
Methods for Rates and Proportions, section 13.1). Else by that of a paired z-test.
"""

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from evaluation.metrics.intervals import Floats

POWER = 0.8
"""Probability to show a difference of this size."""
_STEPS = 20
"""Of the bisection: a difference is exact to 1e-6."""
_MAX_EXACT = 100
"""Expected samples on which the models differ, above which the approximation serves."""
_DEVIATIONS = 6
"""Standard deviations of their number that the exact power covers."""


def minimum_difference(differences: Sequence[float], alpha: float, power: float = POWER) -> float:
    """Return the smallest true mean difference that is shown with a probability of `power`.

    1 where even that would not be shown so often.

    Args:
        differences: of each sample, the second model's score minus the first's; their spread is
            taken as that of a new study.
        alpha: significance level of the two-sided test, after correction.
        power: the probability.
    """
    values = np.asarray(differences, dtype=np.float64)
    if _is_binary(values):
        discordant = (float((values != 0).sum()) + 1.0) / (values.size + 2.0)
        return _smallest(lambda delta: mcnemar_power(delta, discordant, values.size, alpha), power)
    deviation = float(values.std(ddof=1)) if values.size > 1 else math.inf
    # a mean difference is at most 1
    return min(of_standard_error(deviation / math.sqrt(values.size), alpha, power), 1.0)


def of_standard_error(error: float, alpha: float, power: float = POWER) -> float:
    """Return the smallest difference that a z-test shows, from the difference's standard error."""
    return (_quantile(1 - alpha / 2) + _quantile(power)) * error


def mcnemar_power(delta: float, discordant: float, samples: int, alpha: float) -> float:
    """Return the probability that McNemar's test finds a difference of accuracies.

    Args:
        delta: the difference, from 0 to 1.
        discordant: fraction of samples that only one model gets right.
        samples: their number.
        alpha: significance level of the two-sided test.
    """
    discordant = max(discordant, delta)
    if samples * discordant <= _MAX_EXACT:
        return _exact_power(delta, discordant, samples, alpha)
    deviation = math.sqrt(max(discordant - delta**2, 1e-12))
    threshold = _quantile(1 - alpha / 2) * math.sqrt(discordant) + 1 / math.sqrt(samples)
    return NormalDist().cdf((delta * math.sqrt(samples) - threshold) / deviation)


def _exact_power(delta: float, discordant: float, samples: int, alpha: float) -> float:
    """Return the power of the exact test: over the possible numbers of discordant samples."""
    spread = _DEVIATIONS * math.sqrt(samples * discordant * (1 - discordant)) + 1
    first = max(0, math.floor(samples * discordant - spread))
    last = min(samples, math.ceil(samples * discordant + spread))
    wins = (discordant + delta) / (2 * discordant) if discordant else 0.5
    power = 0.0
    weights = _binomial(samples, min(discordant, 1.0))
    for number in range(first, last + 1):
        if rejected := _rejected(number, alpha):
            chances = _binomial(number, min(wins, 1.0))
            power += weights[number] * (chances[:rejected].sum() + chances[-rejected:].sum())
    return float(power)


@functools.lru_cache(maxsize=4096)
def _rejected(discordant: int, alpha: float) -> int:
    """Return for how many numbers of wins, from 0, the exact test finds a loss."""
    return int(np.searchsorted(2 * np.cumsum(_binomial(discordant, 0.5)), alpha))


def _binomial(trials: int, chance: float) -> Floats:
    """Return the probability of each number of successes, (trials + 1,)."""
    successes = np.arange(trials + 1)
    if chance in (0.0, 1.0):
        return np.asarray(successes == trials * chance, dtype=np.float64)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    combinations = factorials[-1] - factorials - factorials[::-1]
    logs = successes * math.log(chance) + (trials - successes) * math.log1p(-chance)
    return np.asarray(np.exp(combinations + logs))


def _smallest(power_of: Callable[[float], float], power: float) -> float:
    """Return the smallest difference whose power is reached; 1 where none is."""
    low, high = 0.0, 1.0
    if power_of(high) < power:
        return 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high


def _is_binary(values: np.ndarray) -> bool:
    return bool(np.isin(values, (-1.0, 0.0, 1.0)).all())


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
