"""Order bias: how answers depend on the order in which a question's options are shown.

Zheng et al. 2024, "Large Language Models Are Not Robust Multiple Choice Selectors" (ICLR);
Pezeshkpour and Hruschka 2024 (Findings of NAACL).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.metrics import intervals
from evaluation.metrics.intervals import Estimate

Sample = Mapping[str, Any]
"""A scored sample with labels in the original order, and the `order` shown."""


def entry(by_question: Sequence[Sequence[Sequence[Sample]]]) -> dict[str, Any]:
    """Return the order bias of a task's answers.

    The unit of all intervals is the question: its orders are not independent. `by_position` is of
    questions with one right option.

    Args:
        by_question: the samples of each question, by run, then by order, the original order first.
    """
    return {
        "questions": len(by_question),
        "accuracy": _mean(by_question, _all_correct),
        "accuracy_original_order": _mean(by_question, lambda orders: [orders[0]["correct"]]),
        "all_orders_correct": _mean(by_question, lambda orders: [all(_all_correct(orders))]),
        "changed_answers": _mean(by_question, _changes),
        "changed_questions": _mean(by_question, lambda orders: [any(_changes(orders))]),
        "unparsed": _mean(
            by_question, lambda orders: [sample["prediction"] is None for sample in orders]
        ),
        "by_position": _by_position(by_question),
        "interval": "95 %, over questions: Wilson if each counts as 0 or 1, else bootstrap",
    }


def _all_correct(orders: Sequence[Sample]) -> list[bool]:
    return [sample["correct"] for sample in orders]


def _changes(orders: Sequence[Sample]) -> list[bool]:
    """Return for each order but the original one whether the answer is another."""
    return [sample["prediction"] != orders[0]["prediction"] for sample in orders[1:]]


def _mean(by_question: Sequence[Sequence[Sequence[Sample]]], values: Any) -> dict[str, float]:
    """Return the mean over questions of each question's mean of `values`, over runs and orders."""
    means = []
    for runs in by_question:
        of_question = [float(value) for orders in runs for value in values(orders)]
        means.append(sum(of_question) / len(of_question))
    is_proportion = all(value in (0.0, 1.0) for value in means)
    estimate = intervals.accuracy(means) if is_proportion else intervals.mean(means)
    return estimate.as_dict()


def _by_position(by_question: Sequence[Sequence[Sequence[Sample]]]) -> list[dict[str, Any]]:
    """Return for each position how often it is chosen, how often it is right, and accuracy there.

    `chosen` is the fraction of answers (unparsed ones included) at the position, `expected` how
    often the right option is there, `accuracy` the fraction of right answers where it is.
    """
    chosen = _PerPosition(len(by_question))
    expected = _PerPosition(len(by_question))
    accuracy = _PerPosition(len(by_question))
    for index, sample in _single_answers(by_question):
        order = sample["order"]
        right = order.index(sample["answer"])
        for position, label in enumerate(order):
            chosen.add(position, index, sample["prediction"] == label)
            expected.add(position, index, position == right)
        accuracy.add(right, index, sample["correct"])
    return [
        {
            "position": position + 1,
            "chosen": chosen.estimate(position).as_dict(),
            "expected": expected.mean(position),
            "accuracy": accuracy.estimate(position).as_dict() if position in accuracy else None,
        }
        for position in sorted(chosen.positions)
    ]


def _single_answers(
    by_question: Sequence[Sequence[Sequence[Sample]]],
) -> Iterable[tuple[int, Sample]]:
    """Yield the samples of questions with one right option, with their question's index."""
    for index, runs in enumerate(by_question):
        for orders in runs:
            for sample in orders:
                if sample["answer"] in sample["order"]:
                    yield index, sample


class _PerPosition:
    """Values by position and question."""

    def __init__(self, num_questions: int) -> None:
        self._sums: dict[int, list[float]] = defaultdict(lambda: [0.0] * num_questions)
        self._counts: dict[int, list[float]] = defaultdict(lambda: [0.0] * num_questions)

    @property
    def positions(self) -> list[int]:
        """Return the positions that have values."""
        return list(self._sums)

    def __contains__(self, position: int) -> bool:
        return position in self._sums

    def add(self, position: int, question: int, value: float) -> None:
        """Add a value of a question at a position."""
        self._sums[position][question] += float(value)
        self._counts[position][question] += 1.0

    def mean(self, position: int) -> float:
        """Return the mean of a position's values."""
        return sum(self._sums[position]) / sum(self._counts[position])

    def estimate(self, position: int) -> Estimate:
        """Return the same with its interval."""
        return intervals.clustered_mean(self._sums[position], self._counts[position])
