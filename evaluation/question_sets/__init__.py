"""Published question sets: a short reader for each layout, all giving `question.Question`.

    questions = question_sets.read("medqa", "data/medqa/test.jsonl")
    questions = question_sets.read("medqa", "hub:GBaker/MedQA-USMLE-4-options:test")

Both evaluation and fine-tuning read through it, so that what is trained on has the form of what is
tested.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evaluation.question_sets import english, jsonl, multilingual, question, rows
from evaluation.question_sets.question import Question
from evaluation.question_sets.rows import Row
from galen.errors import DataError, GalenError, UsageError, did_you_mean, one_line

Reader = Callable[[Row], Question | None]

READERS: dict[str, Reader] = {
    "galen": lambda row: question.from_record(row.record, row.where),
    "medqa": english.medqa,
    "medmcqa": english.medmcqa,
    "pubmedqa": english.pubmedqa,
    "mmlu": english.mmlu,
    "truthfulqa": english.truthfulqa,
    "medxpertqa": english.medxpertqa,
    "mmedbench": multilingual.mmedbench,
    "frenchmedmcqa": multilingual.frenchmedmcqa,
    "igakuqa": multilingual.igakuqa,
    "rumeddanet": multilingual.rumeddanet,
    "headqa": multilingual.headqa,
    "biomistral": multilingual.biomistral,
}
"""Name of a layout to the function that reads one record of it; None leaves a record out."""


def reader(name: str) -> Reader:
    """Return the reader of a layout.

    Raises:
        UsageError: there is no such layout.
    """
    if name not in READERS:
        raise UsageError(f"unknown question set {name!r}; {did_you_mean(name, READERS)}")
    return READERS[name]


def read(name: str, source: str | Path) -> list[Question]:
    """Read the questions of a published set.

    From a file, a folder of files, or `hub:OWNER/NAME[:CONFIGURATION]:SPLIT`.

    An id that a published file has twice gets `#2` the second time.

    Args:
        name: a key of `READERS`.
        source: `.jsonl`, `.jsonl.gz`, `.json`, `.csv` or `.parquet` in the published layout.

    Raises:
        UsageError: unknown name.
        DataError: nothing is there, or a record is wrong; names file, place and key.
    """
    convert = reader(name)
    questions: dict[str, Question] = {}
    copies: Counter[str] = Counter()
    for row in rows.read(source):
        try:
            found = convert(row)
        except GalenError:
            raise
        # readers trust the layout: a list where a text should be, a number for a letter
        except Exception as error:
            raise row.wrong(f"no record in the layout {name!r}: {one_line(error)}") from None
        if found is None:
            continue
        if found.id in questions and name == "galen":
            raise DataError(
                f"{row.where}: key 'id': {found.id!r} comes a second time; ids must be unique"
            )
        copies[found.id] += 1
        # published files have such: FrenchMedMCQA's train.json has one id twice
        if copies[found.id] > 1:
            found = dataclasses.replace(found, id=f"{found.id}#{copies[found.id]}")
        questions[found.id] = found
    if not questions:
        raise DataError(f"{source} holds no questions with an answer")
    return list(questions.values())


def select(
    questions: list[Question], ids: Path | None = None, subjects: list[str] | None = None
) -> list[Question]:
    """Return the questions with a wanted id and a wanted subject.

    Wanted ids are the keys of a JSON object or the items of a JSON list.

    PubMedQA publishes its test set as such a file of ids (`test_ground_truth.json`).

    Raises:
        DataError: an id is not among the questions, or none is left.
    """
    if ids is not None:
        wanted = _ids(ids)
        missing = wanted - {item.id for item in questions}
        if missing:
            raise DataError(
                f"{ids}: {len(missing)} of {len(wanted)} ids are not among the questions, for"
                f" example {min(missing)!r}"
            )
        questions = [item for item in questions if item.id in wanted]
    if subjects is not None:
        questions = [item for item in questions if item.subject in subjects]
    if not questions:
        raise DataError(
            f"no question has one of the subjects {', '.join(subjects)}"
            if subjects
            else f"{ids} names no ids"
        )
    return questions


def _ids(path: Path) -> set[str]:
    try:
        ids = jsonl.tree(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(ids, dict | list) or not all(isinstance(id_, str | int) for id_ in ids):
        raise DataError(f"{path}: a JSON object or list of ids is wanted, not {jsonl.shown(ids)}")
    return {str(id_) for id_ in ids}
