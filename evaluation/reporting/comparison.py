"""Comparison of models with the first one, on the same samples of each task."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.metrics import significance
from evaluation.metrics.intervals import Estimate
from evaluation.reporting.report_inputs import ModelScores, TaskScores, conditions_name
from evaluation.scoring.task_type import TaskType
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One model's row in a task's table."""

    model: str
    metrics: dict[str, Estimate]
    difference: Estimate | None
    """Primary metric minus the first model's, paired over samples; None for the first model."""
    lower_is_better: bool
    p: float | None = None
    """p-value of the paired test against the first model."""
    corrected_p: float | None = None
    """The same, corrected by Holm's method for all tests of the report."""

    @property
    def judgement(self) -> str:
        """Return `better`, `worse`, or `unclear` when the interval of the difference contains zero.

        Empty for the first model.
        """
        if self.difference is None:
            return ""
        if self.difference.low <= 0 <= self.difference.high:
            return "unclear"
        return "better" if (self.difference.value < 0) == self.lower_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task and all models that were scored on it."""

    task: str
    task_type: TaskType[Any]
    samples: int
    chance: float | None
    rows: list[Row]
    protocol: str = ""
    """Protocol and settings, if the report has the task under several; else empty."""

    @property
    def title(self) -> str:
        """Return the task, and the protocol if there are several."""
        return f"{self.task}, {self.protocol}" if self.protocol else self.task

    @property
    def metric(self) -> str:
        """Return the name of the metric that is compared."""
        return self.task_type.primary_metric


def compare(models: Sequence[ModelScores]) -> list[Comparison]:
    """Return a comparison for each task and protocol.

    Models not scored on it are omitted; the first of the others is the baseline.

    Raises:
        DataError: two models were scored on different samples of one task or with different
            protocols.
    """
    comparisons = []
    for name in dict.fromkeys(itertools.chain.from_iterable(model.tasks for model in models)):
        scored = [model for model in models if name in model.tasks]
        groups = _groups(name, scored)
        for protocol, group in groups:
            comparisons.append(_compared(name, protocol if len(groups) > 1 else "", group))
    return _corrected(comparisons)


def _groups(task: str, models: Sequence[ModelScores]) -> list[tuple[str, list[ModelScores]]]:
    """Return groups of models with the same protocol and settings, each with its name.

    Perplexity has no protocol and one group. The baseline must be in each group.

    Raises:
        DataError: a model was scored under a protocol or settings of which the baseline has no
            scores.
    """
    if not models[0].tasks[task].task_type.uses_protocol:
        return [("", list(models))]
    groups: dict[tuple[str, str], list[ModelScores]] = {}
    for model in models:
        groups.setdefault(model.conditions, []).append(model)
    base = models[0]
    for group in groups.values():
        if all(model.model != base.model for model in group):
            _check_same_protocol(base, group[0])
    return [(conditions_name(group[0], models), group) for group in groups.values()]


def _compared(name: str, protocol: str, models: Sequence[ModelScores]) -> Comparison:
    first, *others = models
    base = first.tasks[name]
    rows = [Row(first.name, base.metrics, None, base.task_type.lower_is_better)]
    for model in others:
        scores = model.tasks[name]
        _check_same_samples(name, first.name, base, model.name, scores)
        rows.append(
            Row(
                model.name,
                scores.metrics,
                difference(base, scores),
                base.task_type.lower_is_better,
                p_value(base, scores),
            )
        )
    return Comparison(name, base.task_type, len(base.samples), base.chance, rows, protocol)


def difference(first: TaskScores, second: TaskScores) -> Estimate:
    """Return the second model's primary metric minus the first's, with a paired bootstrap interval.

    Both have the same samples.
    """
    return first.task_type.difference(first.samples, second.samples)


def p_value(first: TaskScores, second: TaskScores) -> float:
    """Return the p-value for equal scores of two models, from paired samples.

    The test compares correctness of questions, or nats of documents.
    """
    key = first.task_type.compared_key
    before = [float(sample[key]) for sample in first.samples.values()]
    after = [float(second.samples[id_][key]) for id_ in first.samples]
    return significance.paired_p_value(before, after)


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """Return the comparisons with the p-values corrected for all tests."""
    p_values: dict[str, float] = {}
    for compared in comparisons:
        for row in compared.rows:
            if row.p is not None:
                p_values[_test_name(compared, row)] = row.p
    corrected = significance.holm(p_values)
    result = []
    for compared in comparisons:
        rows = [
            replace(row, corrected_p=corrected.get(_test_name(compared, row)))
            for row in compared.rows
        ]
        result.append(replace(compared, rows=rows))
    return result


def _test_name(compared: Comparison, row: Row) -> str:
    return f"{compared.title}\n{row.model}"


def _check_same_protocol(first: ModelScores, second: ModelScores) -> None:
    if first.protocol != second.protocol:
        raise DataError(
            f"{first.name} was scored with the protocol {first.protocol}, {second.name} with"
            f" {second.protocol}; these scores are not comparable"
        )
    different = [
        key for key, value in first.settings.items() if second.settings.get(key, value) != value
    ]
    if different:
        raise DataError(
            f"{first.name} was scored with {_settings(first, different)}, {second.name} with"
            f" {_settings(second, different)}; these scores are not comparable"
        )


def _settings(model: ModelScores, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {model.settings[key]}" for key in keys)


def _check_same_samples(
    task: str, first: str, base: TaskScores, second: str, scores: TaskScores
) -> None:
    if base.samples.keys() != scores.samples.keys():
        common = len(base.samples.keys() & scores.samples.keys())
        raise DataError(
            f"task {task!r}: {first} was scored on {len(base.samples)} samples, {second} on"
            f" {len(scores.samples)}, {common} of them the same; score both on the same data"
        )
    settings = base.summary.get("settings", {})
    others = scores.summary.get("settings", {})
    different = [key for key in settings | others if settings.get(key) != others.get(key)]
    if different:
        raise DataError(
            f"task {task!r}: {first} and {second} were scored with different task files (keys"
            f" {', '.join(different)}); these scores are not comparable"
        )
    if reason := base.task_type.mismatch(base.samples, scores.samples):
        raise DataError(f"task {task!r}: {first} and {second} {reason}")
