import math

import numpy as np
import pytest

from evaluation.metrics import intervals


def test_wilson_interval_against_a_published_example():
    """Newcombe 1998, Stat. Med. 17:857, table I: 81 of 263 gives 0.2553 to 0.3662."""
    estimate = intervals.accuracy([True] * 81 + [False] * 182)
    assert estimate.value == pytest.approx(81 / 263)
    assert (estimate.low, estimate.high) == (
        pytest.approx(0.2553, abs=5e-5),
        pytest.approx(0.3662, abs=5e-5),
    )


def test_wilson_interval_at_the_ends_is_exact():
    # numbers for which the formula misses 0 and 1 by a rounding
    none, all_ = intervals.accuracy([0] * 7), intervals.accuracy([1] * 13)
    assert none.low == 0.0 and 0.3 < none.high < 0.4
    assert all_.high == 1.0 and 0.7 < all_.low < 0.8


def test_perplexity_is_token_weighted_and_its_interval_holds_it():
    estimate = intervals.perplexity([10.0, 90.0], [10, 30])
    assert estimate.value == pytest.approx(math.exp(100 / 40))
    assert estimate.low == pytest.approx(math.exp(1)) and estimate.high == pytest.approx(
        math.exp(3)
    )


def test_bits_per_byte():
    assert intervals.bits_per_byte([math.log(2) * 8], [4]).value == pytest.approx(2.0)


def test_bootstrap_interval_of_a_mean_agrees_with_theory():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    estimate = intervals.accuracy_difference(np.zeros(400), values)
    half = 1.96 * values.std() / 20
    assert (estimate.low, estimate.high) == (
        pytest.approx(values.mean() - half, abs=0.02),
        pytest.approx(values.mean() + half, abs=0.02),
    )


def test_pairing_sees_what_single_intervals_hide():
    rng = np.random.default_rng(1)
    tokens = np.full(40, 100)
    first = rng.normal(300, 60, 40)  # documents differ far more than models do
    second = first - 5
    estimate = intervals.perplexity_difference(first, second, tokens)
    assert estimate.low < estimate.value < estimate.high < 0
    assert intervals.perplexity(second, tokens).high > intervals.perplexity(first, tokens).low


def test_the_same_call_gives_the_same_interval():
    assert intervals.perplexity([1.0, 2, 3], [1, 1, 2]) == intervals.perplexity(
        [1.0, 2, 3], [1, 1, 2]
    )


def test_no_items_is_an_error():
    with pytest.raises(ValueError, match="at least one sample"):
        intervals.accuracy([])


def test_fractions_that_are_all_equal_are_not_certain():
    assert intervals.fraction([0.0] * 40) == intervals.accuracy([0] * 40)
    assert intervals.fraction([1.0] * 40).low == pytest.approx(0.912, abs=1e-3)
    assert intervals.fraction([0.5, 1.0]) == intervals.mean([0.5, 1.0])
