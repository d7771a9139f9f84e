"""The report's inputs, read and checked: scores, a corpus, training runs, times of stages."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
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
from evaluation.scoring.task_type import TRUNCATED_PROMPTS, TaskType
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

    @property
    def truncated_prompts(self) -> int:
        """Return the number of prompts that were truncated on the left to the model's context."""
        return int(self.summary.get(TRUNCATED_PROMPTS, 0))

    @property
    def contaminated(self) -> frozenset[str] | None:
        """Return the ids of samples that the training corpus contains; None if not checked."""
        if self.summary.get("contaminated") is None:
            return None
        return frozenset(self.summary.get("contaminated_ids", ()))

    def subset(self, ids: Collection[str]) -> "TaskScores":
        """Return the samples with these ids, with the primary metric only."""
        samples = {id_: sample for id_, sample in self.samples.items() if id_ in ids}
        # a sample is already a mean over the runs
        by_run = [list(samples.values())] * len(self.summary.get("runs") or [""])
        metrics = {self.task_type.primary_metric: self.task_type.estimate(by_run)}
        return replace(self, samples=samples, metrics=metrics)


def contaminated_by_any(scores: Iterable[TaskScores]) -> frozenset[str] | None:
    """Return the ids that the check of at least one model found; None if there was no check."""
    checked = [entry.contaminated for entry in scores if entry.contaminated is not None]
    return frozenset().union(*checked) if checked else None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model's results folder."""

    name: str
    """Name in the report: the model's, with the protocol if the report has several of the model."""
    path: str
    adapter: str | None
    protocol: str
    settings: dict[str, Any]
    """The protocol's settings: few-shot examples, samples …"""
    tasks: dict[str, TaskScores]
    versions: dict[str, str]
    folder: Path
    model: str
    """The model's name."""

    @property
    def conditions(self) -> tuple[str, str]:
        """Return protocol and settings, which must be equal for scores to be comparable."""
        return self.protocol, json.dumps(self.settings, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Counts of a curated corpus, and statistics of its documents."""

    counts: dict[str, Any]
    config: dict[str, Any]
    years: Counter[int]
    """Documents by year, without undated ones."""
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
        DataError: a file is missing or damaged, or samples and results do not match.
    """
    path = folder / "results.json"
    subfolders = [str(file.parent) for file in sorted(folder.glob("*/results.json"))]
    hint = "did `galen evaluate` finish?"
    if subfolders:
        hint = f"it has the results of several models: give {' '.join(subfolders)}"
    results = _read_json(path, hint)
    check(Results, results, path, " is not a results file of `galen evaluate`")
    model = results["model"]
    _name_chat_template(results)
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


def _name_chat_template(results: dict[str, Any]) -> None:
    """Name the file of a chat template by its content: runs with equal ones are comparable."""
    chat = results.get("chat")
    digest = chat.get("template_sha256") if isinstance(chat, dict) else None
    entries = [results.get("settings", {})]
    entries += [entry.get("settings", {}) for entry in results["tasks"].values()]
    for settings in entries:
        if digest and settings.get("chat_template") not in (None, "auto", "none"):
            settings["chat_template"] = f"FILE with SHA-256 {digest[:12]}"


def named(models: Sequence[ModelScores]) -> list[ModelScores]:
    """Return the models with unique names.

    A model that occurs several times gets its protocol and settings in its name.

    Raises:
        UsageError: two have the same name under the same protocol and settings.
    """
    by_name: dict[str, list[ModelScores]] = {model.model: [] for model in models}
    for model in models:
        if any(other.conditions == model.conditions for other in by_name[model.model]):
            names = ", ".join(model.model for model in models)
            raise UsageError(
                f"two results folders have the same model name ({names}); rename one: run `galen"
                " evaluate` again with another --name"
            )
        by_name[model.model].append(model)
    result = []
    for model in models:
        same_name = by_name[model.model]
        if len(same_name) > 1:
            name = f"{model.model} ({conditions_name(model, same_name)})"
            result.append(replace(model, name=name))
        else:
            result.append(model)
    return result


def conditions_name(model: ModelScores, others: Sequence[ModelScores]) -> str:
    """Return a model's protocol, and the settings in which models of the same protocol differ."""
    same_protocol = [other for other in others if other.protocol == model.protocol]
    fields = [model.protocol]
    for key, value in model.settings.items():
        if any(other.settings.get(key, value) != value for other in same_protocol):
            fields.append(f"{key} {jsonl.shown(value)}")
    return ", ".join(fields)


def read_corpus(folder: Path) -> Corpus:
    """Read manifest and documents of a curated corpus (`{train,validation,test}/*.jsonl.gz`).

    Raises:
        DataError: the manifest is missing, a document file is damaged, or there are no documents.
    """
    record = manifest.read(folder, stage="curate")
    years: Counter[int] = Counter()
    languages: Counter[str] = Counter()
    words = []
    files: list[Path] = []
    for split in SPLITS:
        files += sorted((folder / split).glob("*.jsonl.gz"))
    for path in files:
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
    languages = [value] if isinstance(value, str) else value or []
    if not isinstance(languages, list) or not all(isinstance(name, str) for name in languages):
        raise DataError(
            f"{where}: key 'language' must be a list of texts, not {jsonl.shown(value)}"
        )
    return languages


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
    recipe_path = folder / "recipe.yaml"
    recipe = ""
    if recipe_path.exists():
        recipe = recipe_path.read_text(encoding="utf-8", errors="replace")
    return Run(_in_order(steps["train"]), _in_order(steps["validation"]), recipe)


def _in_order(by_step: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [by_step[step] for step in sorted(by_step)]


def read_times(path: Path) -> list[tuple[str, float]]:
    """Read titles and seconds of stages, `{"<stage>": {"title", "seconds"}, …}`, in their order.

    Raises:
        DataError: the file is missing or holds something else.
    """
    stages = _read_json(path)
    if not isinstance(stages, dict):
        raise DataError(
            f"{path} is not a file of stage times: expected an object, not {jsonl.shown(stages)}"
        )
    for name, stage in stages.items():
        check(StageTime, stage, path, f" is not a file of stage times: {jsonl.shown(name)}")
    return [(stage["title"], float(stage["seconds"])) for stage in stages.values()]


def _task_scores(folder: Path, name: str, summary: dict[str, Any]) -> TaskScores:
    path = folder / "results.json"
    type_name = summary["kind"]
    if type_name not in TASK_TYPES:
        raise DataError(f"{path}: task {name!r} has the unknown kind {jsonl.shown(type_name)}")
    task_type = TASK_TYPES[type_name].of_entry(summary)
    if task_type.primary_metric not in summary["metrics"]:
        raise DataError(f"{path}: task {name!r} has no {task_type.primary_metric}")
    estimates = {
        metric: Estimate(entry["value"], entry["low"], entry["high"])
        for metric, entry in summary["metrics"].items()
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
