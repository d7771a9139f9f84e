"""From scored items to a task's entry."""

import pytest
from scipy import stats

from evaluation import summary, task

QUESTIONS = task.MultipleChoiceTask(kind="multiple_choice", file="x")


def test_shares_of_one_run_have_wilson_s_interval_also_where_none_or_all_are_right():
    """A bootstrap of items that are all alike would give an interval of width zero."""
    items = [{"id": str(n), "correct": False, "correct_argmax": n < 3, "top": "x", "prediction": None} for n in range(10)]
    found = summary.summarise(QUESTIONS, [items], [0], 0.25, None)["metrics"]
    for metric, right in [("accuracy", 0), ("accuracy_argmax", 3), ("unreadable", 10)]:
        expected = stats.binomtest(right, 10).proportion_ci(0.95, "wilson")
        assert (found[metric]["low"], found[metric]["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
