"""Planted strengths, order bias and length bias are found again."""

import math

import numpy as np
import pytest

from evaluation.metrics import bradley_terry
from evaluation.metrics.bradley_terry import Comparison


def study(strengths, order, length, conversations, seed, longer=None):
    """Return comparisons of all models in both orders; `longer` writes twice as much."""
    source = np.random.default_rng(seed)
    comparisons = []
    for number in range(conversations):
        sizes = {
            name: source.lognormal(6 + (name == longer) * math.log(2), 0.5) for name in strengths
        }
        for first in strengths:
            for second in strengths:
                if first == second:
                    continue
                ratio = math.log(sizes[first] / sizes[second])
                odds = strengths[first] - strengths[second] + order + length * ratio
                wins = source.random() < 1 / (1 + math.exp(-odds))
                comparisons.append(Comparison(f"c{number}", first, second, float(wins), ratio))
    return comparisons


@pytest.mark.parametrize("seed", range(3))
def test_planted_values_are_recovered(seed):
    planted = {"a": 0.6, "b": 0.0, "c": -0.6}
    fit = bradley_terry.fit(study(planted, 0.5, 0.8, 300, seed, longer="c"))
    for name, value in planted.items():
        assert fit.strengths[name].value == pytest.approx(value, abs=0.25)
    assert fit.order.low > 0.2 and fit.order.value == pytest.approx(0.5, abs=0.2)
    assert fit.length.low > 0.4 and fit.length.value == pytest.approx(0.8, abs=0.3)
    assert fit.win_probability("a", "c") == pytest.approx(1 / (1 + math.exp(-1.2)), abs=0.08)


def test_intervals_hold_the_planted_value():
    held = 0
    for seed in range(20):
        fit = bradley_terry.fit(study({"a": 0.3, "b": -0.3}, 0.3, 0.5, 120, seed))
        held += fit.strengths["a"].low <= 0.3 <= fit.strengths["a"].high
    assert held >= 17  # 19 expected


def test_a_longer_answer_is_not_a_better_one():
    fit = bradley_terry.fit(study({"a": 0.0, "b": 0.0}, 0.0, 1.5, 400, 5, longer="a"))
    assert fit.strengths["a"].low < 0 < fit.strengths["a"].high


def test_a_model_that_always_wins_has_a_finite_strength():
    comparisons = [Comparison(f"c{n}", "a", "b", 1.0, 0.0) for n in range(30)]
    comparisons += [Comparison(f"c{n}", "b", "a", 0.0, 0.0) for n in range(30)]
    fit = bradley_terry.fit(comparisons)
    assert 2 < fit.strengths["a"].value < 20
    assert fit.order.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("conversations", [1, 50])
def test_a_model_that_always_wins_has_no_certain_strength(conversations):
    fitted = bradley_terry.fit(
        [
            Comparison(str(number), first, second, float(first == "a"), 0.0)
            for number in range(conversations)
            for first, second in (("a", "b"), ("b", "a"))
        ]
    )
    strength = fitted.strengths["a"]
    assert strength.low < strength.value < strength.high
    assert strength.high - strength.low > 1
    assert fitted.order.low <= fitted.order.value <= fitted.order.high
