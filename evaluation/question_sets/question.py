"""Multiple-choice questions: the record of all readers and prompt forms, and its JSONL layout."""

import dataclasses
import hashlib
import heapq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.question_sets import jsonl
from galen.errors import DataError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SEVERAL_ANSWERS = ("frenchmedmcqa", "mmedbench")
"""Question sets in which several options may be right."""


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
    """Letter of the right option; several in the options' order with commas: `A,C`."""
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

    @property
    def allows_several(self) -> bool:
        """Whether several options may be right, as its question set says."""
        return self.question_set in _SEVERAL_ANSWERS


def joined(letters: Any, options: dict[str, str]) -> str:
    """Return letters as `Question.answer` holds them: in the options' order, with commas."""
    return ",".join(letter for letter in options if letter in letters)


def read(path: str | Path) -> list[Question]:
    """Read `{"id", "context", "question", "options": {"A": …}, "answer"}` records, one a line.

    Other keys are left alone.

    Raises:
        DataError: the file is missing or empty, or a record is wrong; names file, line and key.
    """
    questions: dict[str, Question] = {}
    for where, record in jsonl.records(path):
        question = from_record(record, where)
        if question.id in questions:
            raise DataError(
                f"{where}: key 'id': {question.id!r} comes a second time; ids must be unique"
            )
        questions[question.id] = question
    if not questions:
        raise DataError(f"{path} holds no questions")
    return list(questions.values())


def sample_questions(questions: list[Question], limit: int | None) -> list[Question]:
    """Return at most `limit` questions, chosen by the SHA-256 of their ids, in their order."""
    if limit is None or limit >= len(questions):
        return questions
    chosen = heapq.nsmallest(
        limit, questions, key=lambda item: hashlib.sha256(item.id.encode()).digest()
    )
    ids = {item.id for item in chosen}
    return [item for item in questions if item.id in ids]


def sample_options(question: Question, count: int) -> Question:
    """Return a question with at most `count` options: the right ones and a sample of the others.

    The wrong ones are chosen by a SHA-256 of question and text; empty ones are left out. All keep
    their order, and get the labels of the first options.
    """

    def draw(label: str) -> bytes:
        # another hash than the one that orders TruthfulQA's options: the labels stay independent
        text = f"sample\n{question.question}\n{question.options[label]}"
        return hashlib.sha256(text.encode()).digest()

    wrong = [
        label
        for label, text in question.options.items()
        if label not in question.answers and text.strip()
    ]
    number = max(count - len(question.answers), 1)
    chosen = question.answers.union(sorted(wrong, key=draw)[:number])
    shown = [label for label in question.options if label in chosen]
    labels = dict(zip(shown, question.options, strict=False))
    return dataclasses.replace(
        question,
        options={labels[label]: question.options[label] for label in shown},
        answer=",".join(labels[label] for label in shown if label in question.answers),
    )


def from_record(record: dict[str, Any], where: str) -> Question:
    """Return the question in a record of Galen's own layout.

    `id` may be an integer, `options` a list of texts (A, B, … in their order), `answer` a list
    of letters, or the text of an option.

    Raises:
        DataError: a key is missing or wrong.
    """
    context = record.get("context")
    if context is None:  # exports write null for what is absent
        context = ""
    if not isinstance(context, str):
        raise DataError(f"{where}: key 'context' must be a text, not {jsonl.shown(context)}")
    options = _options(record, where)
    answer = _answer(record, options, where)
    extra = {
        key: record[key]
        for key in ("question_set", "language", "subject", "rationale")
        if isinstance(record.get(key), str)
    }
    return Question(
        id=jsonl.identifier(record, "id", where),
        context=context,
        question=jsonl.text(record, "question", where),
        options=options,
        answer=answer,
        **extra,
    )


def _options(record: dict[str, Any], where: str) -> dict[str, str]:
    options = record.get("options")
    if isinstance(options, list) and len(options) > len(LETTERS):
        raise DataError(
            f"{where}: key 'options' lists {len(options)} options; {len(LETTERS)} at most, or an"
            " object that names each"
        )
    if isinstance(options, list) and 2 <= len(options) <= len(LETTERS):
        options = dict(zip(LETTERS, options, strict=False))
    if not isinstance(options, dict) or len(options) < 2:
        raise DataError(
            f"{where}: key 'options' must be an object or a list of at least two options, not"
            f" {jsonl.found(record, 'options')}"
        )
    for letter in options:
        if letter.split() != [letter] or "," in letter:
            raise DataError(
                f"{where}: key 'options' names an option {jsonl.shown(letter)}; letters are wanted"
            )
        jsonl.text(options, letter, f"{where}, in 'options'")
    return options


def _answer(record: dict[str, Any], options: dict[str, str], where: str) -> str:
    given = record.get("answer")
    if isinstance(given, list):
        named = [jsonl.text({"answer": part}, "answer", where).strip() for part in given]
    else:
        whole = jsonl.text(record, "answer", where).strip()
        named = [part.strip() for part in whole.split(",")]
        if any(part not in options for part in named):
            named = [whole]
    letters = [letter for part in named for letter in with_text(part, options)]
    if isinstance(record["options"], list) and (two := _ambiguous(named, options)):
        raise DataError(
            f"{where}: key 'answer' is {jsonl.shown(given)}, which may be the letter of"
            f" {options[two]!r:.40} or another option's text; write options as an object:"
            f" {{{two!r}: …}}"
        )
    for part in named:
        if len(twins := with_text(part, options)) > 1:
            raise DataError(
                f"{where}: key 'answer' is {jsonl.shown(given)}, which is the text of the options"
                f" {' and '.join(twins)}; leave one of them out, or give the answer's letter"
            )
    if not letters or any(not with_text(part, options) for part in named):
        raise DataError(
            f"{where}: key 'answer' is {jsonl.shown(given)}, which is none of the options"
            f" {', '.join(options)[:80]}"
        )
    return joined(letters, options)


def _ambiguous(named: list[str], options: dict[str, str]) -> str | None:
    """Return an answer that is one option's letter and another one's text, as of blood groups.

    None where all are unambiguous.
    """
    for part in named:
        texts = [letter for letter, text in options.items() if text.strip() == part]
        if part in options and texts not in ([], [part]):
            return part
    return None


def with_text(answer: str, options: dict[str, str]) -> list[str]:
    """Return the letters of the options that an answer means: itself a letter, else their text.

    White space around the text is ignored.
    """
    if answer in options:
        return [answer]
    return [letter for letter, text in options.items() if text.strip() == answer.strip()]
