"""What the wordings of tasks of one's own share: variables of the templates, errors."""

from typing import Any

from evaluation.question_sets import expressions
from evaluation.question_sets.expressions import ExpressionError
from evaluation.question_sets.field_reader import MappedQuestion
from evaluation.question_sets.question import Question
from galen.errors import DataError


def variables(question: Question) -> dict[str, Any]:
    """Return the variables that the templates of every kind of task see."""
    values: dict[str, Any] = {
        "question": question.question,
        "context": question.context,
        "subject": question.subject,
        "language": question.language,
        "id": question.id,
    }
    if isinstance(question, MappedQuestion):
        values["doc"] = question.doc
    return values


def rendered(yaml: str, key: str, template: str, question: Question, values: dict[str, Any]) -> str:
    """Return the text of a template.

    Args:
        yaml: name of the task file.
        key: of the section `prompt`.
        template: its value.
        question: the question, for the error.
        values: the variables.

    Raises:
        DataError: the template fails.
    """
    try:
        return expressions.render(template, values)
    except ExpressionError as failure:
        raise error(yaml, key, question, str(failure)) from None


def error(yaml: str, key: str, question: Question, message: str) -> DataError:
    """Return an error that names task file, key and question."""
    return DataError(f"{yaml}: key 'prompt.{key}': question {question.id!r}: {message}")
