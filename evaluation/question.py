"""Multiple-choice questions: the record that every reader gives and every prompt form takes, and Galen's own JSONL layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import jsonl
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """One question with lettered options, one or several of which are right."""

    id: str
    context: str
    """What to read before answering, or an empty string."""
    question: str
    options: dict[str, str]
    """Letter to text, in the order shown."""
    answer: str
    """The letter of the right option, or the letters of all right ones in the options' order with commas: `A,C`."""
    question_set: str = ""
    """Name in `evaluation.question_sets`; prompt forms that differ between benchmarks go by it."""
    language: str = "en"
    """ISO 639-1 code."""
    subject: str = ""
    """What the question is about, where its source says so; scores are given by it too."""
    rationale: str = ""
    """Why the answer is right, in words, or an empty string."""
    rationale_checked: bool = False
    """A human has passed the rationale; scores of rationales use only these."""

    @property
    def answers(self) -> frozenset[str]:
        """Letters of all right options."""
        return frozenset(self.answer.split(","))


def joined(letters: Any, options: dict[str, str]) -> str:
    """Return letters as `Question.answer` holds them: in the options' order, with commas."""
    return ",".join(letter for letter in options if letter in letters)


def read(path: str | Path) -> list[Question]:
    """Read `{"id", "context", "question", "options": {"A": …}, "answer"}` records, one a line; other keys are left alone.

    Raises:
        DataError: the file is missing or empty, or a record is wrong; names file, line and key.
    """
    questions: dict[str, Question] = {}
    for where, record in jsonl.records(path):
        question = from_record(record, where)
        if question.id in questions:
            raise DataError(f"{where}: key 'id': {question.id!r} comes a second time; ids must be unique")
        questions[question.id] = question
    if not questions:
        raise DataError(f"{path} holds no questions")
    return list(questions.values())


def from_record(record: dict[str, Any], where: str) -> Question:
    """Return the question in a record of Galen's own layout.

    Raises:
        DataError: a key is missing or wrong.
    """
    context = record.get("context", "")
    if not isinstance(context, str):
        raise DataError(f"{where}: key 'context' must be a text, not {jsonl.shown(context)}")
    options = record.get("options")
    if not isinstance(options, dict) or len(options) < 2:
        raise DataError(f"{where}: key 'options' must be an object of at least two options, not {jsonl.shown(options)}")
    for letter in options:
        jsonl.text(options, letter, f"{where}, in 'options'")
    answer = jsonl.text(record, "answer", where)
    unknown = [letter for letter in answer.split(",") if letter not in options]
    if unknown:
        known = ", ".join(repr(letter)[1:-1] for letter in options)
        raise DataError(f"{where}: key 'answer' is {jsonl.shown(answer)}, which is none of the options {known:.200}")
    extra = {key: record[key] for key in ("question_set", "language", "subject", "rationale") if isinstance(record.get(key), str)}
    return Question(
        id=jsonl.text(record, "id", where),
        context=context,
        question=jsonl.text(record, "question", where),
        options=options,
        answer=joined(answer.split(","), options),
        **extra,
    )
