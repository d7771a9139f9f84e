"""Answers to judge: those that `galen evaluate` wrote for a task with rubrics."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.judging.verdicts import Question
from evaluation.question_sets import jsonl
from evaluation.question_sets.rubric_reader import RubricConversation
from evaluation.scoring import finished_run, sample_log
from evaluation.scoring.results_schema import AnsweredConversation, Results, check
from evaluation.tasks.rubric import RubricTask
from galen import manifest
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AnsweredRun:
    """A model's answers to the conversations of a task."""

    name: str
    """The model's."""
    folder: Path
    protocol: str
    settings: dict[str, Any]
    """Of the protocol."""
    answers: dict[str, list[str]]
    """By the id of the conversation, as many for each."""


def read(
    folder: Path, task: str, specification: RubricTask, conversations: list[RubricConversation]
) -> AnsweredRun:
    """Read a run's answers.

    Args:
        folder: output folder of `galen evaluate`.
        task: its name.
        specification: of the task.
        conversations: of the task.

    Raises:
        UsageError: the run has no such task.
        DataError: the run is unfinished or damaged, or answers other conversations.
    """
    path = folder / finished_run.RESULTS
    if not path.is_file():
        raise DataError(f"{folder} has no {finished_run.RESULTS}: `galen evaluate` writes it")
    results = jsonl.tree(path)
    check(Results, results, path, " is not a results file of `galen evaluate`")
    entry = results["tasks"].get(task)
    if entry is None:
        scored = ", ".join(results["tasks"])
        raise UsageError(f"{folder} has no answers to {task}; it has {scored}")
    if entry["kind"] != specification.kind:
        raise UsageError(f"{folder}: {task} is a task without rubrics")
    _check_files(folder, task)
    answers = _answers(folder, task)
    known = {item.id for item in conversations}
    if unknown := answers.keys() - known:
        raise DataError(
            f"{folder} answers conversations that --data lacks, for example"
            f" {jsonl.shown(min(unknown))}"
        )
    order = [item.id for item in conversations if item.id in answers]
    return AnsweredRun(
        results["model"]["name"],
        folder,
        results["protocol"],
        results.get("settings", {}),
        {id_: answers[id_] for id_ in order},
    )


def read_all(
    folders: list[Path],
    task: str,
    specification: RubricTask,
    conversations: list[RubricConversation],
    data: Path,
) -> list[AnsweredRun]:
    """Read the answers of several runs to the conversations below `data`.

    Raises:
        UsageError: two are of models with the same name; see `read`.
        DataError: see `read`; or one has answered files with another content.
    """
    runs = [read(folder, task, specification, conversations) for folder in folders]
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two runs are of a model named {name}; see --name of galen evaluate")
    for run in runs:
        _check_content(run, task, specification.files(data))
        _warn_of_settings(runs[0], run)
    return runs


def _warn_of_settings(first: AnsweredRun, run: AnsweredRun) -> None:
    """Warn where two runs were asked in different ways: their scores compare more than models."""
    different = [key for key in first.settings if first.settings[key] != run.settings.get(key)]
    if first.protocol != run.protocol:
        different.insert(0, "protocol")
    if different:
        logger.warning(
            f"{first.name} and {run.name} answered under different settings"
            f" ({', '.join(different)}): the difference is not that of the models alone"
        )


def _check_content(run: AnsweredRun, task: str, files: list[Path]) -> None:
    """Check that the run has answered the conversations of these files.

    Raises:
        DataError: a file has another content.
    """
    recorded = manifest.read(run.folder)["config"]["tasks"][task]["files"]
    for path in files:
        if recorded.get(path.name, recorded.get(str(path))) != manifest.sha256(path):
            raise DataError(
                f"{run.folder} has answered another {path.name}: give the --data of that run"
            )


def _check_files(folder: Path, task: str) -> None:
    record = manifest.read(folder)
    if task not in record.get("config", {}).get("tasks", {}):
        raise DataError(f"{folder}: {manifest.NAME} has no task {task}; score the model again")


def _answers(folder: Path, task: str) -> dict[str, list[str]]:
    """Return the answers by conversation."""
    path = folder / "samples" / sample_log.file_name(task)
    answers: dict[str, list[str]] = {}
    for file in sample_log.parts(path) or [path]:
        for where, sample in jsonl.records(file):
            check(AnsweredConversation, sample, where, ": not an answered conversation")
            answers.setdefault(sample["id"], sample["answers"])  # as the scores do
    if len({len(items) for items in answers.values()}) != 1:
        raise DataError(f"{path}: the conversations have different numbers of answers")
    return answers


def questions(run: AnsweredRun, conversations: list[RubricConversation]) -> list[Question]:
    """Return a question for each criterion of each answer, in order."""
    return [
        Question(item.messages, answer, criterion)
        for item in conversations
        if item.id in run.answers
        for answer in run.answers[item.id]
        for criterion in item.rubric
    ]
