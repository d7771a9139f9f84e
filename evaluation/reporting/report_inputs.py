"""The report's inputs, read and checked: scores, a corpus, training runs, times of stages."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation.metrics.intervals import Estimate
from evaluation.question_sets import jsonl
from evaluation.scoring import sample_log
from evaluation.scoring.results_schema import (
    CorpusCounts,
    LogLine,
    Results,
    StageTime,
    check,
)
from evaluation.scoring.task_type import TaskType
from evaluation.scoring.task_types import TASK_TYPES
from galen import manifest
from galen.errors import DataError, UsageError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One model's scores on one task."""

    task_type: TaskType[Any]
    metrics: dict[str, Estimate]
    samples: dict[str, dict[str, Any]]
    """The scored samples by their id."""
    chance: float | None
    """Accuracy of guessing, for multiple choice."""
    summary: dict[str, Any] = field(default_factory=dict)
    """The task's complete entry of `results.json`."""


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model's results folder."""

    name: str
    """How the report calls it.

    The model, and the protocol where the report has several of the model.
    """
    path: str
    adapter: str | None
    protocol: str
    settings: dict[str, Any]
    """The protocol's settings: few-shot examples, branches …"""
    tasks: dict[str, TaskScores]
    versions: dict[str, str]
    folder: Path
    model: str
    """The model's name."""

    @property
    def way(self) -> tuple[str, str]:
        """Return what must be equal for scores to compare: protocol and settings."""
        return self.protocol, json.dumps(self.settings, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Counts of a curated corpus and what its documents look like."""

    counts: dict[str, Any]
    config: dict[str, Any]
    years: Counter[int]
    """Documents by year; those without a date are not in it."""
    words: list[int]
    """Length of each document in words."""
    languages: Counter[str]


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: its log and its resolved recipe."""

    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    recipe: str


def read_scores(folder: Path) -> ModelScores:
    """Read the results folder that `evaluation/run.py` wrote for one model.

    Raises:
        DataError: a file is missing or damaged, or samples and results do not fit each other.
    """
    path = folder / "results.json"
    inside = [str(found.parent) for found in sorted(folder.glob("*/results.json"))]
    hint = (
        f"several models were scored into it: give {' '.join(inside)}"
        if inside
        else "was the model scored to its end by `galen evaluate`?"
    )
    results = _read_json(path, hint)
    check(Results, results, path, " is not a results file of `galen evaluate`")
    model = results["model"]
    return ModelScores(
        name=model["name"],
        path=model["path"],
        adapter=model.get("adapter"),
        protocol=results["protocol"],
        settings=results.get("settings", {}),
        tasks={
            name: _task_scores(folder, name, summary) for name, summary in results["tasks"].items()
        },
        versions=results["versions"],
        folder=folder,
        model=model["name"],
    )


def named(models: Sequence[ModelScores]) -> list[ModelScores]:
    """Return the models with unique names.

    A model that occurs several times gets its protocol and settings in its name.

    Raises:
        UsageError: two have the same name under the same protocol and settings.
    """
    by_model = Counter(model.model for model in models)
    ways: dict[str, list[ModelScores]] = {model.model: [] for model in models}
    for model in models:
        if any(other.way == model.way for other in ways[model.model]):
            names = ", ".join(model.model for model in models)
            raise UsageError(
                f"two results folders have the same model name ({names}); rename one: run `galen"
                " evaluate` again with another --name"
            )
        ways[model.model].append(model)
    several = {name for name, times in by_model.items() if times > 1}
    shown = {
        id(model): f"{model.model} ({way(model, ways[model.model])})"
        for model in models
        if model.model in several
    }
    return [replace(model, name=shown.get(id(model), model.name)) for model in models]


def way(model: ModelScores, others: Sequence[ModelScores]) -> str:
    """Return a model's protocol, and the settings in which models of the same protocol differ."""
    alike = [other for other in others if other.protocol == model.protocol]
    keys = [
        key
        for key, value in model.settings.items()
        if any(other.settings.get(key, value) != value for other in alike)
    ]
    return ", ".join(
        [model.protocol, *(f"{key} {jsonl.shown(model.settings[key])}" for key in keys)]
    )


def read_corpus(folder: Path) -> Corpus:
    """Read manifest and documents of a curated corpus (`{train,validation,test}/*.jsonl.gz`).

    Raises:
        DataError: the manifest is missing, a document file is damaged, or there are no documents.
    """
    record = manifest.read(folder, stage="curate")
    years: Counter[int] = Counter()
    languages: Counter[str] = Counter()
    words = []
    for path in (path for split in SPLITS for path in sorted((folder / split).glob("*.jsonl.gz"))):
        for where, document in jsonl.records(path):
            words.append(len(jsonl.text(document, "text", where).split()))
            metadata = document.get("metadata") or {}
            if not isinstance(metadata, dict):
                raise DataError(
                    f"{where}: key 'metadata' must be an object, not {jsonl.shown(metadata)}"
                )
            year = str(metadata.get("date") or "")[:4]
            if re.fullmatch("[0-9]{4}", year):
                years[int(year)] += 1
            languages.update(_languages(metadata.get("language"), where))
    if not words:
        raise DataError(f"{folder} holds no documents ({', '.join(SPLITS)}/*.jsonl.gz)")
    if not {"read", "kept", "dropped"} <= _mapping(record.get("counts")).keys():
        raise DataError(
            f"{folder / manifest.NAME}: its counts lack read, kept or dropped; was it written by"
            " `galen curate`?"
        )
    check(
        CorpusCounts,
        record["counts"],
        folder / manifest.NAME,
        ": its counts are not those of `galen curate`",
    )
    return Corpus(record["counts"], _mapping(record.get("config")), years, words, languages)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _languages(value: Any, where: str) -> list[str]:
    """Return the languages in a document's metadata: none, one, or a list."""
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(language, str) for language in found):
        raise DataError(
            f"{where}: key 'language' must be a list of texts, not {jsonl.shown(value)}"
        )
    return found


def read_run(folder: Path) -> Run:
    """Read the log and the recipe of a training run.

    A restarted run logs the steps since its last checkpoint again; the last line of each step
    counts.

    Raises:
        DataError: the log is missing, damaged, or without a training step.
    """
    steps: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "validation": {}}
    path = folder / "log.jsonl"
    for where, line in jsonl.records(path):
        if line.get("kind") in ("train", "validation"):
            check(LogLine, line, where, ": not a line of a training log")
            steps[line["kind"]][line["step"]] = line
    if not steps["train"]:
        raise DataError(f"{path} holds no training step")
    recipe = folder / "recipe.yaml"
    train, validation = ([by_step[step] for step in sorted(by_step)] for by_step in steps.values())
    return Run(
        train,
        validation,
        recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else "",
    )


def read_times(path: Path) -> list[tuple[str, float]]:
    """Read titles and seconds of stages, `{"<stage>": {"title", "seconds"}, …}`, in their order.

    Raises:
        DataError: the file is missing or holds something else.
    """
    stages = _read_json(path)
    if not isinstance(stages, dict):
        raise DataError(
            f"{path} is not a file of stage times: an object is wanted, not {jsonl.shown(stages)}"
        )
    for name, stage in stages.items():
        check(StageTime, stage, path, f" is not a file of stage times: {jsonl.shown(name)}")
    return [(stage["title"], float(stage["seconds"])) for stage in stages.values()]


def _task_scores(folder: Path, name: str, summary: dict[str, Any]) -> TaskScores:
    path = folder / "results.json"
    kind = summary["kind"]
    if kind not in TASK_TYPES:
        raise DataError(f"{path}: task {name!r} is of the unknown kind {jsonl.shown(kind)}")
    task_type = TASK_TYPES[kind]
    if task_type.primary_metric not in summary["metrics"]:
        raise DataError(f"{path}: task {name!r} has no {task_type.primary_metric}")
    estimates = {
        metric: Estimate(**{key: found[key] for key in ("value", "low", "high")})
        for metric, found in summary["metrics"].items()
    }
    first, *others = [
        folder / "samples" / sample_log.file_name(name, run) for run in summary.get("runs") or [""]
    ]
    samples = _samples(first, task_type)
    for other in others:  # a sample's `correct` is its mean over the runs
        for id_, sample in _samples(other, task_type).items():
            if id_ not in samples:
                raise DataError(
                    f"{other} holds the sample {jsonl.shown(id_)}, which {first} lacks; score the"
                    " model again"
                )
            samples[id_] = {**samples[id_], "correct": samples[id_]["correct"] + sample["correct"]}
    if others:
        samples = {
            id_: {**sample, "correct": sample["correct"] / (len(others) + 1)}
            for id_, sample in samples.items()
        }
    if len(samples) != summary["samples"]:
        raise DataError(
            f"{first} holds {len(samples)} samples, but results.json counts {summary['samples']};"
            " score the model again"
        )
    return TaskScores(task_type, estimates, samples, summary.get("chance"), summary)


def _samples(path: Path, task_type: TaskType[Any]) -> dict[str, dict[str, Any]]:
    """Return the samples of a run by their id, from the files of all processes that wrote them."""
    samples = {}
    for file in sample_log.parts(path) or [path]:
        for where, sample in jsonl.records(file):
            check(task_type.sample_schema, sample, where, ": not a scored sample")
            samples[sample["id"]] = sample
    return samples


def _read_json(path: Path, hint: str = "") -> Any:
    try:
        return jsonl.tree(path)
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}{'; ' + hint if hint else ''}"
        ) from None
