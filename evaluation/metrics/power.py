"""The smallest difference between two models that a test set could show.

For right and wrong answers by the approximation of McNemar's test with continuity correction
(Fleiss, Levin, Paik 2003, Statistical Methods for Rates and Proportions, section 13.1), else by
that of a paired z-test.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

POWER = 0.8
"""Probability to show a difference of this size."""
_STEPS = 60
"""Of the bisection: more than the bits of a float."""


def minimum_difference(differences: Sequence[float], alpha: float, power: float = POWER) -> float:
    """Return the smallest true mean difference that is shown with a probability of `power`.

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
    return of_standard_error(deviation / math.sqrt(values.size), alpha, power)


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
    deviation = math.sqrt(max(discordant - delta**2, 1e-12))
    threshold = _quantile(1 - alpha / 2) * math.sqrt(discordant) + 1 / math.sqrt(samples)
    return NormalDist().cdf((delta * math.sqrt(samples) - threshold) / deviation)


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
