"""Scores of generated answers against the references of a question.

A metric is a function from question and answer to `AnswerScore` in `SCORERS`; a rubric with a
judge model would be one as well.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from evaluation.metrics import reference_metrics
from evaluation.question_sets.reference_reader import ReferenceQuestion
from evaluation.scoring import answer_values
from evaluation.scoring.answer_values import Value
from evaluation.tasks.generation import GenerationTask
from galen.errors import DataError

_ROUNDING = 1e-9
"""Relative error of numbers that are the same in decimal digits."""


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """A scored answer."""

    extracted: str | None
    """The answer as it was scored; None where it is unparsed."""
    score: float
    """From 0 to 1."""
    exact_match: bool | None = None
    """With f1: whether the answer is a reference, normalized as in SQuAD's script."""


Scorer = Callable[[GenerationTask, ReferenceQuestion, str, bool], AnswerScore]
"""From task, question, answer, and whether the answer ended before the token limit."""
UNPARSED = AnswerScore(None, 0.0)


def score(
    task: GenerationTask, question: ReferenceQuestion, answer: str, is_finished: bool = True
) -> AnswerScore:
    """Score an answer.

    Args:
        task: its metric.
        question: the question with its references.
        answer: without the thinking.
        is_finished: False if the token limit ended it.
    """
    if task.regex_pattern is not None:
        matches = list(re.finditer(task.regex_pattern, answer))
        if not matches:
            return UNPARSED
        answer = (matches[-1][1] if matches[-1].re.groups else matches[-1][0]) or ""
    return SCORERS[task.metric](task, question, answer.strip(), is_finished)


def _exact_match(
    task: GenerationTask, question: ReferenceQuestion, answer: str, is_finished: bool
) -> AnswerScore:
    if not answer:
        return UNPARSED
    is_correct = any(
        reference_metrics.exact_match(
            answer,
            reference.strip(),
            ignore_case=task.ignore_case,
            ignore_punctuation=task.ignore_punctuation,
            ignore_numbers=task.ignore_numbers,
            regexes_to_ignore=task.regexes_to_ignore,
        )
        for reference in question.references
    )
    return AnswerScore(answer, float(is_correct))


def _f1(
    task: GenerationTask, question: ReferenceQuestion, answer: str, is_finished: bool
) -> AnswerScore:
    if not answer:
        return AnswerScore(None, 0.0, False)
    best = max(reference_metrics.token_f1(answer, item) for item in question.references)
    normalized = reference_metrics.squad_normalized(answer)
    is_exact = any(
        normalized == reference_metrics.squad_normalized(item) for item in question.references
    )
    return AnswerScore(answer, best, is_exact)


def _numeric(
    task: GenerationTask, question: ReferenceQuestion, answer: str, is_finished: bool
) -> AnswerScore:
    references = reference_values(question)
    value = answer_values.extract(answer, references[0], is_finished)
    if value is None:
        return UNPARSED
    limits = number_limits(question)
    is_correct = any(_equal(task, value, reference, limits) for reference in references)
    return AnswerScore(_shown(value), float(is_correct))


SCORERS: dict[str, Scorer] = {"exact_match": _exact_match, "numeric": _numeric, "f1": _f1}
"""Metric to the function that scores an answer."""


def check(task: GenerationTask, question: ReferenceQuestion) -> None:
    """Check the references of a question.

    Raises:
        DataError: one is no value, or the limits are no numbers.
    """
    if task.metric != "numeric":
        return
    for key, read in (("answer", reference_values), ("lower", number_limits)):
        try:
            read(question)
        except DataError as error:
            where = f"{task.fields.yaml}: key 'fields.{key}'"
            raise DataError(f"{where}: question {question.id!r}: {error}") from None


def reference_values(question: ReferenceQuestion) -> list[Value]:
    """Return the references as values of one type.

    Raises:
        DataError: one is no value, or they have different types.
    """
    values: list[Value] = []
    for reference in question.references:
        value = answer_values.parse(reference)
        if value is None:
            raise DataError(
                f"the reference {reference!r} is no number (1,234.5),"
                " date (MM/DD/YYYY) or gestational age (17 weeks, 4 days)"
            )
        values.append(value)
    if len({type(value) for value in values}) > 1:
        raise DataError("the references are values of different types")
    return values


def number_limits(question: ReferenceQuestion) -> tuple[float, float] | None:
    """Return the lowest and the highest right number; None where the task has none.

    Limits of dates and gestational ages are the reference itself.

    Raises:
        DataError: they are no numbers.
    """
    if question.limits is None:
        return None
    values = [answer_values.parse(text) for text in question.limits]
    if all(value is not None and not isinstance(value, float) for value in values):
        return None
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < 2:
        raise DataError(f"the limits {question.limits} are no numbers")
    return min(numbers), max(numbers)  # 95 % of a negative number is the higher one


def _equal(
    task: GenerationTask, value: Value, reference: Value, limits: tuple[float, float] | None
) -> bool:
    if not isinstance(value, float) or not isinstance(reference, float):
        return value == reference
    if limits is not None:
        low, high = limits
        return low <= value <= high or any(
            math.isclose(value, limit, rel_tol=_ROUNDING) for limit in limits
        )
    absolute = relative = 0.0
    if task.tolerance is not None:
        absolute, relative = task.tolerance.absolute, task.tolerance.relative
    distance = abs(value - reference)
    largest = max(absolute, relative * abs(reference))
    return distance <= largest + _ROUNDING * max(abs(value), abs(reference))


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, tuple):
        return f"{value[0]} weeks, {value[1]} days"
    return f"{value:%m/%d/%Y}"
