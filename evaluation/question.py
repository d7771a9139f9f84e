"""Multiple-choice questions: the record, and reading them from JSONL."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import jsonl
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """One question with lettered options, one of which is right."""

    id: str
    context: str
    """What to read before answering, or an empty string."""
    question: str
    options: dict[str, str]
    """Letter to text, in the order shown."""
    answer: str
    """The letter of the right option."""


def read(path: str | Path) -> list[Question]:
    """Read `{"id", "context", "question", "options": {"A": …}, "answer"}` records, one a line; other keys are left alone.

    Raises:
        DataError: the file is missing or empty, or a record is wrong; names file, line and key.
    """
    questions: dict[str, Question] = {}
    for where, record in jsonl.records(path):
        question = _question(record, where)
        if question.id in questions:
            raise DataError(f"{where}: key 'id': {question.id!r} comes a second time; ids must be unique")
        questions[question.id] = question
    if not questions:
        raise DataError(f"{path} holds no questions")
    return list(questions.values())


def _question(record: dict[str, Any], where: str) -> Question:
    context = record.get("context", "")
    if not isinstance(context, str):
        raise DataError(f"{where}: key 'context' must be a text, not {jsonl.shown(context)}")
    options = record.get("options")
    if not isinstance(options, dict) or len(options) < 2:
        raise DataError(f"{where}: key 'options' must be an object of at least two options, not {jsonl.shown(options)}")
    for letter in options:
        jsonl.text(options, letter, f"{where}, in 'options'")
    answer = jsonl.text(record, "answer", where)
    if answer not in options:
        raise DataError(f"{where}: key 'answer' is {answer!r}, which is none of the options {', '.join(options)}")
    return Question(
        id=jsonl.text(record, "id", where), context=context, question=jsonl.text(record, "question", where), options=options, answer=answer
    )
