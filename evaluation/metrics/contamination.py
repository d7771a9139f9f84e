"""Samples that the training corpus contains, from an index that decontamination wrote."""

import itertools
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from evaluation.question_sets import jsonl
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)
Contaminated = Mapping[str, frozenset[str]]
"""Task to ids of its samples; under "" ids of any task."""


def read(path: Path, threshold: float) -> Contaminated:
    """Read `{"id", "ratio", "task", "action"}` records.

    `ratio`: the fraction, from 0 to 1, of a sample's n-grams that the corpus contains.

    `task` and `action` are optional; a sample whose documents were dropped or redacted is no longer
    in the corpus and does not count.

    Args:
        path: JSON Lines, plain or gzip-compressed.
        threshold: samples from this ratio on count as contaminated.

    Raises:
        UsageError: `threshold` is not above 0 and at most 1.
        DataError: the file is missing or a record is wrong.
    """
    if not 0 < threshold <= 1:
        raise UsageError(
            f"--contamination-threshold must be above 0 and at most 1, not {threshold}"
        )
    ids: dict[str, set[str]] = {"": set()}
    for where, record in jsonl.records(path):
        value = record.get("ratio")
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(
                f"{where}: key 'ratio' must be a number from 0 to 1, not {jsonl.shown(value)}"
            )
        if value >= threshold and record.get("action") not in ("dropped", "redact"):
            task = str(record.get("task") or "")
            ids.setdefault(task, set()).add(jsonl.identifier(record, "id", where))
    return {task: frozenset(of_task) for task, of_task in ids.items()}


def warn_of_ids(contaminated: Contaminated, ids: Mapping[str, Collection[str]]) -> None:
    """Warn of ids that are in no task, or in several.

    Args:
        contaminated: the contaminated ids.
        ids: those of the samples of each task.
    """
    counts = Counter(itertools.chain.from_iterable(ids.values()))
    everywhere = contaminated[""]
    in_tasks = [contaminated.get(task, frozenset()) & set(of_task) for task, of_task in ids.items()]
    is_any = any(contaminated.values())
    if is_any and not any(in_tasks) and everywhere.isdisjoint(counts):
        example = next(iter(sorted(itertools.chain.from_iterable(contaminated.values()))))
        logger.warning(
            f"--contamination: none of the contaminated ids, such as {example!r}, is a sample of"
            f" {', '.join(ids)}: all samples count as clean"
        )
    ambiguous = sorted(id_ for id_ in everywhere if counts[id_] > 1)
    if ambiguous:
        logger.warning(
            f"--contamination: {len(ambiguous)} contaminated ids, such as {ambiguous[0]!r}, are"
            " samples of several tasks and count in each; the key 'task' tells them apart"
        )


def of_task(contaminated: Contaminated | None, task: str) -> frozenset[str] | None:
    """Return the ids that count for a task, or None if contamination was not checked."""
    return None if contaminated is None else contaminated[""] | contaminated.get(task, frozenset())
