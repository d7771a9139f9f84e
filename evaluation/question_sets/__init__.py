"""Published question sets: a short reader for each layout, all giving `question.Question`.

    questions = question_sets.read("medqa", "data/medqa/test.jsonl")
    questions = question_sets.read("medqa", "hub:GBaker/MedQA-USMLE-4-options:test")

Both evaluation and fine-tuning read through it, so that what is trained on has the form of what is
tested.
"""

import dataclasses
import logging
from collections import Counter
from pathlib import Path

from evaluation.question_sets import english, field_reader, jsonl, multilingual, question, rows
from evaluation.question_sets.question import Question
from evaluation.question_sets.reader import OtherSplit, Reader
from evaluation.question_sets.rows import Row, Table
from galen.errors import DataError, GalenError, UsageError, did_you_mean, one_line

logger = logging.getLogger(__name__)

_READERS = (
    Reader(
        name="galen",
        convert=lambda row: question.from_record(row.record, row.where),
        unique_ids=True,
    ),
    Reader(name="medqa", convert=english.medqa),
    Reader(name="medmcqa", convert=english.medmcqa),
    Reader(name="pubmedqa", convert=english.pubmedqa),
    Reader(name="mmlu", convert=english.mmlu, few_shot_by_subject=True),
    Reader(name="truthfulqa", convert=english.truthfulqa, table=Table()),
    Reader(name="mmedbench", convert=multilingual.mmedbench),
    Reader(name="frenchmedmcqa", convert=multilingual.frenchmedmcqa),
    Reader(name="igakuqa", convert=multilingual.igakuqa),
    Reader(name="headqa", convert=multilingual.headqa),
    Reader(
        name="biomistral",
        convert=multilingual.biomistral,
        fixed_few_shot=multilingual.BIOMISTRAL_FEW_SHOT,
    ),
)
_LAYOUTS = sorted(Path(__file__).with_name("layouts").glob("*.yaml"))
READERS: dict[str, Reader] = {
    **{item.name: item for item in _READERS},
    **{path.stem: field_reader.load(path) for path in _LAYOUTS},
}
"""Readers of published layouts by name."""


def reader(name: str) -> Reader:
    """Return the reader of a layout.

    Raises:
        UsageError: there is no such layout.
    """
    if name not in READERS:
        raise UsageError(f"unknown question set {name!r}; {did_you_mean(name, READERS)}")
    return READERS[name]


def read(layout: str | Reader, source: str | Path) -> list[Question]:
    """Read the questions of a set.

    From a file, a folder of files, or `hub:OWNER/NAME[:CONFIGURATION]:SPLIT`.

    An id that a published file has twice gets `#2` the second time.

    Args:
        layout: a key of `READERS`, or a reader.
        source: `.jsonl`, `.jsonl.gz`, `.json`, `.csv` or `.parquet` in this layout; `.tsv` where
            the reader names columns.

    Raises:
        UsageError: unknown name.
        DataError: nothing is there, or a record is wrong; names file, place and key.
    """
    layout = reader(layout) if isinstance(layout, str) else layout
    questions: dict[str, Question] = {}
    copies: Counter[str] = Counter()
    skipped = 0
    other_splits: Counter[str] = Counter()
    for row in rows.read(source, layout.table):
        found = _convert(layout, row)
        if found is None:
            skipped += 1
            continue
        if isinstance(found, OtherSplit):
            other_splits[found.name] += 1
            continue
        if found.id in questions and layout.unique_ids:
            raise DataError(
                f"{row.where}: {layout.id_key}: {found.id!r} comes a second time;"
                " ids must be unique"
            )
        copies[found.id] += 1
        # published files have such: FrenchMedMCQA's train.json has one id twice
        if copies[found.id] > 1:
            found = dataclasses.replace(found, id=f"{found.id}#{copies[found.id]}")
        questions[found.id] = found
    if skipped:
        total = skipped + other_splits.total() + copies.total()
        logger.info(
            f"{source}: {skipped} of {total} records skipped (no answer, or excluded by filter)"
        )
    if not questions:
        raise _no_questions(layout, source, skipped, other_splits)
    return list(questions.values())


def _no_questions(
    layout: Reader, source: str | Path, skipped: int, other_splits: Counter[str]
) -> DataError:
    """Return the error of a source without a question to read."""
    if other_splits:
        hint = did_you_mean(layout.split or "", sorted(other_splits))
        skip = f" ({skipped} records without an answer or excluded by filter)" if skipped else ""
        return DataError(f"{source} has no questions of the split {layout.split!r}{skip}; {hint}")
    excluded = f": all {skipped} records are excluded (no answer, or filter)"
    return DataError(f"{source} holds no questions with an answer{excluded if skipped else ''}")


def _convert(layout: Reader, row: Row) -> Question | OtherSplit | None:
    """Return the question in a record, or None to skip it."""
    try:
        return layout.convert(row)
    except GalenError:
        raise
    # readers trust the layout: a list where a text should be, a number for a letter
    except Exception as error:
        raise row.wrong(f"not a record in the layout {layout.name!r}: {one_line(error)}") from None


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
