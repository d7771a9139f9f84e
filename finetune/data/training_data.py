"""Reads the training and validation records of a recipe's `data` section."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import question_sets
from evaluation.prompts.registry import get_template
from evaluation.question_sets import rows
from evaluation.question_sets.question import Question
from finetune.config.recipe import Data, Source
from finetune.data import contamination, record, sample
from finetune.data.contamination import Match
from finetune.data.record import Record
from finetune.data.sample import Item
from galen.errors import DataError

NEEDS_RATIONALE = {"meditron_cot", "meditron_chat_cot", "mmedbench_rationale"}
"""Templates whose answer begins with a rationale: questions without one are excluded from them."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Records for training and validation."""

    train: list[Item]
    validation: list[Item]
    files: list[Path]
    """All files read."""
    contaminated: list[Match]
    """Best match of each training record that was excluded because it contains a test question."""
    without_rationale: int
    """Number of questions excluded from a template that needs a rationale."""


def read(data: Data) -> TrainingData:
    """Read all records of a recipe.

    Raises:
        UsageError: there is no such question set or template.
        DataError: a file is damaged, training and validation share a record, or no record is left.
    """
    train_sources = _as_sources(data.train)
    validation_sources = _as_sources(data.validation)
    test_sources = _as_sources(data.decontaminate_against)
    sources = [*train_sources, *validation_sources, *test_sources]
    _check_names(sources, data.protocol)
    train = _read_all(train_sources, data.protocol)
    validation = _read_all(validation_sources, data.protocol)
    _check_disjoint(train, validation)
    contaminated = _find_contaminated(train, test_sources, data.protocol)
    excluded_ids = {match["document"] for match in contaminated}
    train = [item for item in train if item.record.id not in excluded_ids]
    number_read = len(train) + len(validation)
    train = [item for item in train if not _lacks_rationale(item)]
    validation = [item for item in validation if not _lacks_rationale(item)]
    without_rationale = number_read - len(train) - len(validation)
    if not train:
        raise DataError(
            f"no record is left to train on: {len(contaminated)} are in test sets,"
            f" {without_rationale} have no rationale"
        )
    if data.validation_fraction:
        train, validation = _split(train, data.validation_fraction)
    files: dict[Path, None] = {}
    for source in sources:
        files |= dict.fromkeys(_files(source))
    return TrainingData(train, validation, list(files), contaminated, without_rationale)


def _check_names(sources: Sequence[str | Source], protocol: str) -> None:
    """Check the names of question sets and templates.

    Raises:
        UsageError: there is no such set or template.
    """
    get_template(protocol)
    for source in sources:
        if isinstance(source, Source):
            question_sets.reader(source.set)
            for name in source.templates or []:
                get_template(name)


def _read_all(sources: Sequence[str | Source], protocol: str) -> list[Item]:
    items: list[Item] = []
    for source in sources:
        items += _items(source, protocol)
    return items


def _split(items: Sequence[Item], fraction: float) -> tuple[list[Item], list[Item]]:
    """Return training and validation items.

    Raises:
        DataError: one of them is empty.
    """
    train, validation = sample.split(items, fraction)
    for name, part in (("training", train), ("validation", validation)):
        if not part:
            raise DataError(
                f"data.validation_fraction = {fraction} leaves none of {len(items):,} records for"
                f" {name}; choose another fraction, or data.validation=FILE and"
                " data.validation_fraction=0"
            )
    return train, validation


def _as_sources(value: str | Sequence[str | Source] | None) -> list[str | Source]:
    return [value] if isinstance(value, str) else list(value or [])


def _items(source: str | Source, protocol: str) -> Iterator[Item]:
    """Yield the records of a file or a published set, once for each of its templates."""
    if isinstance(source, str):
        for read_record in record.read(source):
            yield Item(read_record, protocol)
        return
    for question in _select(source):
        if source.set != "galen":
            question = dataclasses.replace(question, id=f"{source.set}/{question.id}")
        for template in source.templates or [protocol]:
            yield Item(question, template)


def _select(source: Source) -> list[Question]:
    """Return the questions of a published set that its recipe selects."""
    questions = question_sets.read(source.set, source.source)
    ids = Path(source.ids) if source.ids else None
    questions = question_sets.select(questions, ids, source.subjects)
    if source.exclude_ids is None:
        return questions
    excluded = {item.id for item in question_sets.select(questions, Path(source.exclude_ids))}
    return [question for question in questions if question.id not in excluded]


def _find_contaminated(
    train: Sequence[Item], sources: Sequence[str | Source], protocol: str
) -> list[Match]:
    """Return the best match of each training record that contains a test question.

    A record in several templates is checked once.
    """
    if not sources:
        return []
    tests: dict[str, list[Record]] = {}
    for source in sources:
        name = Path(source if isinstance(source, str) else source.source).name
        tests.setdefault(name, []).extend(item.record for item in _items(source, protocol))
    records = {item.record.id: item.record for item in train}
    return contamination.find(list(records.values()), tests)


def _lacks_rationale(item: Item) -> bool:
    return (
        item.template in NEEDS_RATIONALE
        and isinstance(item.record, Question)
        and not item.record.rationale.strip()
    )


def _check_disjoint(train: Sequence[Item], validation: Sequence[Item]) -> None:
    """Check for duplicate records.

    Copies of prompts and conversations within training are allowed, as a weighting.

    Raises:
        DataError: a record is in training and validation, or a question twice in training.
    """
    shared = {item.record.id for item in train} & {item.record.id for item in validation}
    if shared:
        raise DataError(
            f"the record {min(shared)!r} is in both training and validation, which must share none"
        )
    seen: set[tuple[str, str]] = set()
    for item in train:
        key = (item.record.id, item.template)
        if key in seen and isinstance(item.record, Question):
            raise DataError(
                f"the question {item.record.id!r} is in two training files; name each file once"
            )
        seen.add(key)


def _files(source: str | Source) -> list[Path]:
    if isinstance(source, str):
        return [Path(source)]
    extra = [Path(name) for name in (source.ids, source.exclude_ids) if name is not None]
    return [*rows.files(source.source), *extra]
