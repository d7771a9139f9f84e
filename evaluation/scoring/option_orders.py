"""A task's questions in several option orders, and samples mapped back to the original labels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.metrics import order_bias
from evaluation.prompts.template import PromptTemplate
from evaluation.question_sets import option_order
from evaluation.question_sets.option_order import Permutation
from evaluation.question_sets.question import Question
from evaluation.scoring.task_type import Job, Sample

REFERS = "refers_to_options"
NOT_SHOWN = "options_not_shown"


@dataclass(frozen=True, slots=True)
class OptionOrders:
    """The questions of a task in further orders."""

    seed: int
    by_number: list[list[Permutation]]
    """The questions in their second order, third order, …; the later ones may be fewer."""
    excluded: dict[str, int]
    """Number of questions without further orders, by reason."""

    @property
    def count(self) -> int:
        """Return the number of orders, with the original one."""
        return 1 + len(self.by_number)

    def permutations(self, number: int) -> list[Permutation]:
        """Return the questions in their n-th order; `number` is at least 1, 0 is the original."""
        return self.by_number[number - 1]


def permute(
    questions: Sequence[Question], template: PromptTemplate, count: int, seed: int
) -> OptionOrders:
    """Return questions in `count` orders.

    Excluded are questions with options that refer to others, and those whose prompt does not show
    the options: their order changes nothing.
    """
    by_number: dict[int, list[Permutation]] = defaultdict(list)
    excluded = {REFERS: 0, NOT_SHOWN: 0}
    for question in questions:
        if option_order.refers_to_options(question):
            excluded[REFERS] += 1
            continue
        permutations = option_order.permuted(question, count, seed)
        if template(permutations[1].question).text == template(question).text:
            excluded[NOT_SHOWN] += 1
            continue
        for number, permutation in enumerate(permutations[1:]):
            by_number[number].append(permutation)
    return OptionOrders(seed, list(by_number.values()), excluded)


def exclusions(excluded: Mapping[str, int]) -> str:
    """Return the questions without further orders in words; empty if there are none."""
    reasons = {
        REFERS: "with options that refer to others",
        NOT_SHOWN: "whose prompt does not show the options",
    }
    return ", ".join(
        f"{count} questions {reasons[reason]}" for reason, count in excluded.items() if count
    )


def restore(job: Job, permutations: Sequence[Permutation]) -> Job:
    """Return the job of permuted questions with samples that have the original labels."""

    def build(index: int, *reply: Any) -> Sample:
        return restored(job.build(index, *reply), permutations[index])

    return replace(job, build=build)


_LABELS = ("prediction", "argmax", "strict_match")
"""Keys of a sample with labels joined by commas, or None."""


def restored(sample: Sample, permutation: Permutation) -> Sample:
    """Return the sample of a permuted question with the original labels.

    Generated texts keep the labels that the model saw. Added are the `order` of the original labels
    as shown, and the `position` of the answer in it, from 1 (None where it is not a single one).
    """
    sample = dict(sample)
    for key in _LABELS:
        if key in sample:
            sample[key] = permutation.original_labels(sample[key])
    if "extracted_answers" in sample:
        answers = sample["extracted_answers"]
        sample["extracted_answers"] = [permutation.original_labels(item) for item in answers]
    if "logprobs" in sample:
        original = {
            permutation.original_label(label): value for label, value in sample["logprobs"].items()
        }
        sample["logprobs"] = {label: original[label] for label in permutation.original.options}
    sample["answer"] = permutation.original.answer
    sample["order"] = list(permutation.order)
    sample["position"] = permutation.position(sample["prediction"])
    return sample


def entry(orders: OptionOrders, by_run: Sequence[Sequence[Mapping[str, Sample]]]) -> dict[str, Any]:
    """Return the section `order_bias` of a task's results.

    Args:
        orders: the questions in further orders.
        by_run: for each run, for each order (the original first), the samples by id.
    """
    result: dict[str, Any] = {
        "orders": orders.count,
        "seed": orders.seed,
        "excluded": orders.excluded,
    }
    if not orders.by_number:
        return result | {"questions": 0}
    questions = [permutation.original for permutation in orders.permutations(1)]
    by_question = [
        [_samples_of(question, by_order) for by_order in by_run] for question in questions
    ]
    return result | order_bias.entry(by_question)


def _samples_of(question: Question, by_order: Sequence[Mapping[str, Sample]]) -> list[Sample]:
    """Return a question's samples in all its orders, the original first."""
    original = by_order[0][question.id] | {"order": list(question.options)}
    return [original, *(samples[question.id] for samples in by_order[1:] if question.id in samples)]
