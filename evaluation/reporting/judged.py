"""Scores and comparisons in the folders of judges, for the report.

Each judge has tables of its own: scores of two judges never share a column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.judging import agreement_file, pair_scores, score_files
from evaluation.question_sets import jsonl
from evaluation.scoring.results_schema import check
from galen.errors import DataError, UsageError

_TITLES = {"theme": "Theme", "axis": "Axis", "use_case": "Use case", "difficulty": "Difficulty"}
"""Kinds of tags that the report shows."""


@dataclass(frozen=True, slots=True)
class JudgedTask:
    """Scores of one task by one judge."""

    task: str
    judge: str
    """The judge and its agreement, in words."""
    entries: list[dict[str, Any]]
    """Of each model, the contents of its file of scores."""

    @property
    def tags(self) -> list[tuple[str, str]]:
        """Title and tag of each group of conversations or criteria that is shown."""
        names = dict.fromkeys(tag for entry in self.entries for tag in entry["by_tag"])
        shown = []
        for tag in names:
            kind, _, name = tag.partition(":")
            if kind in _TITLES:
                shown.append((f"{_TITLES[kind]}: {name.replace('_', ' ')}", tag))
        return shown


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What a judge's folder holds."""

    tasks: list[JudgedTask] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Contents of files of `galen judge-pairs`."""


def read(folders: Sequence[Path]) -> list[JudgeReport]:
    """Read the folders of judges.

    Raises:
        UsageError: one is named twice.
        DataError: one holds no scores, or a file is damaged.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("--judges names a folder twice")
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> JudgeReport:
    entries = [score_files.read(path) for path in sorted(folder.glob("scores/*.json"))]
    pairs = [_pairs(path) for path in sorted(folder.glob("pairs/*.json"))]
    if not entries and not pairs:
        raise DataError(f"{folder} holds no scores of `galen judge` or `galen judge-pairs`")
    agreement = agreement_file.read(folder)
    tasks = []
    for task in dict.fromkeys(entry["task"] for entry in entries):
        of_task = [entry for entry in entries if entry["task"] == task]
        sentence = agreement_file.sentence(of_task[0]["judge"], agreement)
        tasks.append(JudgedTask(task, sentence, of_task))
    return JudgeReport(tasks, pairs)


def _pairs(path: Path) -> dict[str, Any]:
    value = jsonl.tree(path)
    check(pair_scores.Summary, value, path, " is not a comparison of `galen judge-pairs`")
    return dict(value)
