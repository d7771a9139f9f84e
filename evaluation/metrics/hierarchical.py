"""Mean difference over tasks, with intervals over their samples and over the tasks themselves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.chosen_prompts import RESAMPLES, resampled_means
from evaluation.metrics.intervals import SEED, Estimate, Floats

_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""0.975 quantile of Student's t distribution with 1, 2 … degrees of freedom."""

_NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True, slots=True)
class Overall:
    """Mean of the tasks' differences, each task with the same weight."""

    tasks: int
    of_these_tasks: Estimate
    """95 % interval over samples: what holds for these tasks."""
    of_such_tasks: Estimate
    """95 % interval over tasks and samples: what would hold for other tasks of the kind."""


def mean_difference(
    differences: Sequence[Sequence[float]], resampled: Sequence[Floats | None] = ()
) -> Overall:
    """Return the mean difference over tasks.

    The interval over tasks is Student's, from the spread of the tasks' differences, which has both
    errors: that of the tasks and that of the samples in each. A bootstrap over a handful of tasks
    is far too narrow. It is at least as wide as the errors of the samples alone would make it; with
    a single task it is unlimited.

    Args:
        differences: of each task, of each sample, the second model's score minus the first's.
        resampled: of each task its mean in `RESAMPLES` resamples, where these have a source of
            error that the samples' differences lack; None where they have none.
    """
    source = np.random.default_rng(SEED)
    resampled = resampled or [None] * len(differences)
    means = [float(np.mean(values)) for values in differences]
    value = float(np.mean(means))
    drawn = np.array(
        [
            given if given is not None else _resampled(values, source)
            for values, given in zip(differences, resampled, strict=True)
        ]
    )
    low, high = np.quantile(drawn.mean(0), [0.025, 0.975])
    fixed = Estimate(value, float(low), float(high))
    number = len(means)
    if number == 1:
        return Overall(1, fixed, Estimate(value, -np.inf, np.inf))
    of_tasks = float(np.std(means, ddof=1)) / math.sqrt(number)
    of_samples = _NORMAL_QUANTILE * float(drawn.mean(0).std())
    half = max(_student_quantile(number - 1) * of_tasks, of_samples)
    return Overall(number, fixed, Estimate(value, value - half, value + half))


def _student_quantile(freedom: int) -> float:
    """Return the 0.975 quantile of Student's t distribution."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    return _NORMAL_QUANTILE + (_NORMAL_QUANTILE**3 + _NORMAL_QUANTILE) / (4 * freedom)


def _resampled(values: Sequence[float], source: np.random.Generator) -> Floats:
    return resampled_means(np.asarray(values, dtype=np.float64), RESAMPLES, source)
