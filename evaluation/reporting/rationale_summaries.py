"""Metrics of rationales, from the summaries that `galen rationales` writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.metrics.intervals import Estimate
from evaluation.question_sets import jsonl
from evaluation.scoring.results_schema import RationaleSummary, check
from evaluation.scoring.task_type import TRUNCATED_PROMPTS
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class TaskRationales:
    """The scored rationales of one task."""

    samples: int
    """Questions that the run answered."""
    rationales: int
    """Those with a checked reference, which are scored."""
    metrics: dict[str, Estimate]
    """From 0 to 100."""
    truncated: int = 0
    """Prompts of the run that did not fit the model's context."""


@dataclass(frozen=True, slots=True)
class RationaleRun:
    """One model's scored rationales under one protocol."""

    name: str
    protocol: str
    settings: dict[str, Any]
    tasks: dict[str, TaskRationales]


def read(paths: list[Path]) -> list[RationaleRun]:
    """Read summaries, and join those of the same model, protocol and settings.

    Raises:
        DataError: a file is missing or damaged, or two are about the same task.
    """
    runs: list[RationaleRun] = []
    for path in paths:
        summary = _read_json(path)
        check(RationaleSummary, summary, path, " is not a summary of `galen rationales`")
        run = RationaleRun(
            summary["model"], summary["protocol"], summary.get("settings", {}), tasks={}
        )
        existing = [other for other in runs if _conditions(other) == _conditions(run)]
        if existing:
            [run] = existing
        else:
            runs.append(run)
        task = summary["task"]
        if task in run.tasks:
            raise DataError(f"{path}: the rationales of {run.name} on {task} are given twice")
        run.tasks[task] = _task(path, summary)
    return runs


def _conditions(run: RationaleRun) -> tuple[str, str, dict[str, Any]]:
    return run.name, run.protocol, run.settings


def _task(path: Path, summary: dict[str, Any]) -> TaskRationales:
    if len(summary["languages"]) != 1:
        raise DataError(f"{path}: expected rationales in one language")
    [language] = summary["languages"].values()
    metrics = {
        name: Estimate(entry["value"], entry["low"], entry["high"])
        for name, entry in language["metrics"].items()
        if {"value", "low", "high"} <= entry.keys()
    }
    samples = summary["samples"] or language["rationales"]
    truncated = int(summary.get(TRUNCATED_PROMPTS, 0))
    return TaskRationales(samples, language["rationales"], metrics, truncated)


def _read_json(path: Path) -> Any:
    try:
        return jsonl.tree(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
