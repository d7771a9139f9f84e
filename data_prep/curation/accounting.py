"""Counts of a corpus by source, step and reason; every record read is kept or dropped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.curation.quarantine import count_quarantined
from data_prep.curation.recipe import SPLITS, CorpusRecipe
from data_prep.curation.stages import READER, Stages
from data_prep.executors.local import TaskExecutor
from data_prep.readers.base import WARNING
from galen.errors import DataError


def corpus_counts(
    recipe: CorpusRecipe, sources: Sequence[str], stages: Stages, write: TaskExecutor
) -> dict[str, Any]:
    """Return the counts of the manifest.

    Checks, for each task, that what was read is what was kept and what was dropped.

    Args:
        recipe: of the corpus.
        sources: for each task, the name of its source.
        stages: that have run.
        write: executor of the last stage.

    Raises:
        DataError: a split that the recipe asks for is empty.
    """
    by_source: dict[str, Counter[str]] = {}
    read: Counter[str] = Counter()
    for task, source in enumerate(sources):
        read_by_task = stages.read.task_counts(task)[0]
        counts = _count_task(task, read_by_task["total"], stages, write)
        by_source.setdefault(source, Counter()).update(counts)
        read.update(read_by_task)
    written = write.counts(-1)
    dropped = _sum_dropped(recipe, stages)
    kept = sum(counts["kept"] for counts in by_source.values())
    splits = {name: written[name] for name in SPLITS if getattr(recipe.split, name) > 0}
    _check_splits(splits, read["total"], kept, dropped)
    warnings = {
        key.removeprefix(WARNING): count
        for key, count in sorted(read.items())
        if key.startswith(WARNING)
    }
    return ({"warnings": warnings} if warnings else {}) | {
        "read": read["total"],
        "kept": kept,
        "dropped": dropped,
        "extra_repeats": written["extra_repeats"],
        "changed": dict(stages.changed),
        "splits": splits,
        "bytes": written["text_bytes"],
        "sources": {name: dict(counts) for name, counts in by_source.items()},
        "quarantined": count_quarantined(read),
        "broken_files": read["broken files"],
    }


def _count_task(task: int, read: int, stages: Stages, write: TaskExecutor) -> dict[str, int]:
    """Return the documents of a task: read, kept, and dropped by step and reason."""
    written = write.task_counts(task)[-1]
    kept = sum(written[name] for name in SPLITS) - written["extra_repeats"]
    dropped = stages.dropped[task]
    if read != kept + dropped.total():
        raise RuntimeError(
            f"task {task}: read {read} records, but kept {kept} and dropped"
            f" {dropped.total()}: a bug, please report it"
        )
    by_reason = {f"{step}: {reason}": count for (step, reason), count in dropped.items()}
    return {"read": read, "kept": kept, **by_reason}


def _sum_dropped(recipe: CorpusRecipe, stages: Stages) -> dict[str, int]:
    """Return the dropped documents of all tasks, in the order of the steps, by reason."""
    total = sum(stages.dropped, Counter[tuple[str, str]]())
    order = [READER, *(step.step for step in recipe.steps)]
    keys = sorted(total, key=lambda key: (order.index(key[0]), key[1]))
    return {f"{step}: {reason}": total[step, reason] for step, reason in keys}


def _check_splits(
    splits: Mapping[str, int], read: int, kept: int, dropped: Mapping[str, int]
) -> None:
    """Check that no split is empty.

    Raises:
        DataError: one is.
    """
    for name, count in splits.items():
        if count == 0:
            reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "nothing"
            raise DataError(
                f"the {name} split would be empty: {read} records read, {kept}"
                f" kept (dropped: {reasons}); give more input, filter less, or set split.{name}=0"
                " and add its fraction to the others"
            )
