"""From scored samples to a task's entry."""

import pytest
from scipy import stats

from evaluation.metrics import aggregate


def test_shares_of_one_run_have_wilson_s_interval_also_where_none_or_all_are_right():
    """A bootstrap of samples that are all alike would give an interval of width zero."""
    samples = [
        {"id": str(n), "correct": False, "correct_argmax": n < 3, "top": "x", "prediction": None}
        for n in range(10)
    ]
    found = aggregate.choice_entry([samples], [0])["metrics"]
    for metric, right in [("accuracy", 0), ("accuracy_argmax", 3), ("unparsed", 10)]:
        expected = stats.binomtest(right, 10).proportion_ci(0.95, "wilson")
        assert (found[metric]["low"], found[metric]["high"]) == (
            pytest.approx(expected.low),
            pytest.approx(expected.high),
        )


def test_a_model_that_answers_one_letter_nearly_always_is_flagged():
    def items(predictions, answers):
        return [
            {"prediction": None if p == "-" else p, "answer": a}
            for p, a in zip(predictions, answers, strict=True)
        ]

    found = aggregate.predictions(items("A" * 19 + "B", "ABCD" * 5))
    assert found == {
        "predictions": {"A": 19, "B": 1},
        "one_sided": "95.0% of the answers are A, which is right for 25.0% of the questions",
    }
    # it is nearly always right
    assert aggregate.predictions(items("A" * 20, "A" * 19 + "B")) == {"predictions": {"A": 20}}
    assert aggregate.predictions(items("A" * 17 + "B--", "ABCD" * 5)) == {
        "predictions": {"A": 17, "unparsed": 2, "B": 1}
    }
    assert "one_sided" not in aggregate.predictions(items("A" * 8, "ABCD" * 2))  # too few to say
