"""Mean difference over tasks, with intervals over their samples and over the tasks themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.chosen_prompts import RESAMPLES, resampled_means
from evaluation.metrics.intervals import SEED, Estimate, Floats


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

    The interval over tasks is that of a hierarchical bootstrap: tasks are drawn, then samples
    within each. With few tasks the bootstrap over tasks is too narrow; it is widened by
    sqrt(n / (n - 1)), which gives the variance of the mean without bias, and with a single task it
    is unlimited.

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
    chosen = source.integers(0, number, (number, RESAMPLES))
    over_tasks = drawn[chosen, np.arange(RESAMPLES)].mean(0)
    widened = value + (over_tasks - over_tasks.mean()) * np.sqrt(number / (number - 1))
    low, high = np.quantile(widened, [0.025, 0.975])
    return Overall(number, fixed, Estimate(value, float(low), float(high)))


def _resampled(values: Sequence[float], source: np.random.Generator) -> Floats:
    return resampled_means(np.asarray(values, dtype=np.float64), RESAMPLES, source)
