import itertools

import numpy as np
import pytest

from evaluation.metrics import rater_agreement, rubric_scores
from evaluation.metrics.rater_agreement import Rating
from evaluation.metrics.rubric_scores import Adjustment, JudgedAnswer


def answer(is_met, characters=2000):
    tags = (("axis:a",), ("axis:a", "level:x"), ("axis:b",), ())
    return JudgedAnswer((7.0, 5.0, 10.0, -6.0), tuple(is_met), tags, characters)


def test_points_that_are_met_of_the_positive_ones():
    assert rubric_scores.score(answer([1, 0, 1, 1])) == pytest.approx((7 + 10 - 6) / 22)
    assert rubric_scores.score(answer([0, 0, 0, 1])) == pytest.approx(-6 / 22)
    assert rubric_scores.score(answer([1, 0, 1, 1]), "axis:a") == pytest.approx(7 / 12)
    assert rubric_scores.score(answer([1, 1, 1, 1]), "level:y") is None


def test_long_answers_lose_what_short_ones_win():
    correction = Adjustment(center=2000, per_500=0.0147)
    full = [1, 1, 1, 0]
    assert rubric_scores.score(answer(full, 3000), adjustment=correction) == pytest.approx(0.9706)
    assert rubric_scores.score(answer(full, 1500), adjustment=correction) == pytest.approx(1.0147)


def test_the_mean_is_clipped_and_not_the_scores():
    assert rubric_scores.clipped_mean([-0.5, 0.9]).value == pytest.approx(0.2)
    assert rubric_scores.clipped_mean([-0.5, 0.1]).value == 0
    single = rubric_scores.clipped_mean([0.4])
    assert (single.low, single.value, single.high) == (0.0, 0.4, 1.0)
    negative = rubric_scores.clipped_mean([-0.5, -0.2, -0.1])
    assert negative.low == negative.value == 0
    assert negative.high == pytest.approx(0.5615, abs=1e-4)


def test_worst_at_k_is_the_mean_over_all_subsets():
    scores = np.random.default_rng(1).normal(0.4, 0.3, (5, 6)).tolist()
    for k, value in enumerate(rubric_scores.worst_at_k(scores), start=1):
        worst = [
            np.mean([min(drawn) for drawn in itertools.combinations(row, k)]) for row in scores
        ]
        assert value == pytest.approx(np.clip(np.mean(worst), 0, 1))


def test_macro_f1_against_several_raters():
    ratings = [
        Rating(True, (True, True, False)),
        Rating(False, (True, False)),
        Rating(True, (False,)),
    ]
    counts = rater_agreement.pair_counts(ratings)
    # yes: 2 right, 2 wrongly yes, 1 wrongly no; no: 1 right
    expected = (2 * 2 / (2 * 2 + 3) + 2 * 1 / (2 * 1 + 3)) / 2
    assert rater_agreement.macro_f1(counts) == pytest.approx(expected)
    estimate = rater_agreement.macro_f1_estimate(counts, ["a", "a", "b"])
    assert estimate.low <= estimate.value <= estimate.high


def test_cohen_kappa():
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: (0.7 - 0.5) / (1 - 0.5)."""
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert rater_agreement.cohen_kappa(first, second) == pytest.approx(0.4)
    assert np.isnan(rater_agreement.cohen_kappa([True, True], [True, True]))
