"""From a recipe's `data` section to training and validation records with their prompt forms."""

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
from finetune.data.contamination import Finding
from finetune.data.record import Record
from finetune.data.sample import Item
from galen.errors import DataError

NEEDS_RATIONALE = {"meditron_cot", "meditron_chat_cot", "mmedbench_rationale"}
"""Forms whose answer begins with a rationale: questions without one are not taught in them."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is trained and validated on."""

    train: list[Item]
    validation: list[Item]
    files: list[Path]
    """All files read."""
    contaminated: list[Finding]
    """The training records that were left out, since they hold a test question: one finding each.
    """
    without_rationale: int
    """Questions that were left out of a template that needs a rationale."""


def read(data: Data) -> TrainingData:
    """Read all records of a recipe.

    Raises:
        UsageError: there is no such question set or template.
        DataError: a file is bad, the same record stands in training and validation, or nothing is
            left.
    """
    get_template(data.protocol)
    parts = [
        _as_sources(part) for part in (data.train, data.validation, data.decontaminate_against)
    ]
    for source in (source for part in parts for source in part if isinstance(source, Source)):
        question_sets.reader(source.set)
        for name in source.templates or []:
            get_template(name)
    train, validation = (
        [item for source in part for item in _items(source, data.protocol)] for part in parts[:2]
    )
    _check_apart(train, validation)
    shared = _find_contaminated(train, parts[2], data.protocol)
    held = {finding["document"] for finding in shared}
    train = [item for item in train if item.record.id not in held]
    whole = len(train) + len(validation)
    train, validation = (
        [item for item in part if not _lacks_rationale(item)] for part in (train, validation)
    )
    lacking = whole - len(train) - len(validation)
    if not train:
        raise DataError(
            f"no record is left to train on: {len(shared)} are in test sets, {lacking} have no"
            " rationale"
        )
    if data.validation_fraction:
        train, validation = sample.split(train, data.validation_fraction)
        for name, items in (("training", train), ("validation", validation)):
            if not items:
                raise DataError(
                    f"data.validation_fraction = {data.validation_fraction} leaves none of"
                    f" {len(train) + len(validation):,} records for {name}; give another share, or"
                    " data.validation=FILE and data.validation_fraction=0"
                )
    files = [path for part in parts for source in part for path in _files(source)]
    return TrainingData(train, validation, list(dict.fromkeys(files)), shared, lacking)


def _as_sources(given: str | Sequence[str | Source] | None) -> list[str | Source]:
    return [given] if isinstance(given, str) else list(given or [])


def _items(source: str | Source, protocol: str) -> Iterator[Item]:
    """Yield the records of a file or a published set, with each template that they are put in."""
    if isinstance(source, str):
        yield from (Item(found, protocol) for found in record.read(source))
        return
    questions = question_sets.read(source.set, source.source)
    questions = question_sets.select(
        questions, Path(source.ids) if source.ids else None, source.subjects
    )
    if source.exclude_ids is not None:
        left_out = {item.id for item in question_sets.select(questions, Path(source.exclude_ids))}
        questions = [item for item in questions if item.id not in left_out]
    for found in questions:
        named = (
            found
            if source.set == "galen"
            else dataclasses.replace(found, id=f"{source.set}/{found.id}")
        )
        for template in source.templates or [protocol]:
            yield Item(named, template)


def _find_contaminated(
    train: Sequence[Item], sources: Sequence[str | Source], protocol: str
) -> list[Finding]:
    """Return a finding for each training record that holds a test question.

    A record in several forms is checked once.
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


def _check_apart(train: Sequence[Item], validation: Sequence[Item]) -> None:
    """Check for duplicate records.

    Copies of prompts and conversations within training are allowed: the user's weighting.
    """
    both = {item.record.id for item in train} & {item.record.id for item in validation}
    if both:
        raise DataError(
            f"the record {min(both)!r} is in both; training and validation must share none"
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
