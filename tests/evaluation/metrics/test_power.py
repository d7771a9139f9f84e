"""The stated power is reached, and equal models are not found different."""

import numpy as np
import pytest

from evaluation.metrics import hierarchical, power, significance

STUDIES = 400


def draw(source, samples, discordant, delta):
    """Return the differences of a study: -1, 0 or 1 for each sample."""
    up = (discordant + delta) / 2
    return source.choice([1.0, 0.0, -1.0], samples, p=[up, 1 - discordant, discordant - up])


@pytest.mark.parametrize(
    ("samples", "discordant", "alpha"),
    [
        (20, 0.1, 0.05),
        (60, 0.3, 0.005),
        (200, 0.3, 0.05),
        (500, 0.1, 0.05),
        (1273, 0.25, 0.05 / 9),
        (2000, 0.05, 0.01),
    ],
)
def test_the_stated_power_is_reached_within_five_points(samples, discordant, alpha):
    """Each study states a difference, and one with that true difference follows it."""
    source = np.random.default_rng(samples)
    found = []
    for _ in range(STUDIES):
        delta = power.minimum_difference(draw(source, samples, discordant, 0.0), alpha)
        study = draw(source, samples, max(discordant, delta), delta)
        found.append(significance.paired_p_value(np.zeros(samples), study) < alpha)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_scores_that_are_no_zeros_and_ones():
    source = np.random.default_rng(1)
    pilot = source.normal(0, 0.3, 300)
    delta = power.minimum_difference(pilot, 0.05)
    # (1.960 + 0.842) x 0.3 / sqrt(300)
    assert delta == pytest.approx(2.802 * 0.3 / np.sqrt(300), rel=0.1)


def test_a_handful_of_samples_shows_nothing():
    assert power.minimum_difference([1.0, 0.0, -1.0], 0.05 / 20) == 1.0


def test_intervals_over_tasks_and_over_samples():
    """True task differences vary: only the interval over tasks covers the mean of all tasks."""
    source = np.random.default_rng(3)
    covered = {"these": 0, "such": 0}
    studies = 100
    for _ in range(studies):
        tasks = source.normal(0.02, 0.03, 8)
        differences = [draw(source, 400, 0.3, delta) for delta in tasks]
        overall = hierarchical.mean_difference(differences)
        covered["these"] += (
            overall.of_these_tasks.low <= tasks.mean() <= overall.of_these_tasks.high
        )
        covered["such"] += overall.of_such_tasks.low <= 0.02 <= overall.of_such_tasks.high
    assert covered["these"] / studies == pytest.approx(0.95, abs=0.05)
    assert covered["such"] / studies >= 0.88


@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_interval_over_a_few_tasks_is_wide_enough(number):
    source = np.random.default_rng(number)
    covered = 0
    studies = 200
    for _ in range(studies):
        tasks = source.normal(0.02, 0.1, number)
        overall = hierarchical.mean_difference([[task, task] for task in tasks])
        covered += overall.of_such_tasks.low <= 0.02 <= overall.of_such_tasks.high
    assert covered / studies >= 0.91


def test_scores_that_differ_alike_everywhere():
    """A single score, or equal ones, have no spread: the difference is a number in JSON."""
    assert power.minimum_difference([0.3], 0.05) == 1.0


def test_one_task_says_nothing_about_others():
    overall = hierarchical.mean_difference([[0.0, 1.0, 0.0, 1.0]])
    assert overall.of_such_tasks.low == -np.inf and overall.of_these_tasks.value == 0.5
