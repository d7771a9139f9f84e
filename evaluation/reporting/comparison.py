"""Comparison of models with the first one, on the same samples of each task."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evaluation.metrics import generated_answers, significance
from evaluation.metrics.intervals import Estimate
from evaluation.reporting import comparability
from evaluation.reporting.report_inputs import (
    ModelScores,
    TaskScores,
    conditions_name,
    contaminated_by_any,
)
from evaluation.scoring.task_type import TaskType
from galen.errors import DataError

ALPHA = 0.05
"""Significance level of the corrected tests."""
_BY_LENGTH = ("acc_norm", "acc_bytes")
"""Metrics of options' log-likelihoods divided by their length."""


_COUNTED = (
    "perplexity",
    "bits_per_byte",
    *generated_answers.COUNTED,
    # of lm-evaluation-harness
    "word_perplexity",
    "byte_perplexity",
    "bleu",
    "chrf",
    "chrf++",
    "ter",
    "likelihood",
)
"""Metrics that are not fractions; all others are shown in percent."""


def is_fraction(metric: str) -> bool:
    """Return whether a metric is shown in percent; a harness metric may have a filter's name."""
    return metric.partition(",")[0].removesuffix("_of_samples") not in _COUNTED


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
        """Return `better`, `worse` or `unclear`; empty for the first model.

        A difference is clear if the corrected p-value is below `ALPHA` and the interval of the
        difference excludes zero. One that was not tested is unclear.
        """
        if self.difference is None:
            return ""
        if self.corrected_p is None or self.corrected_p >= ALPHA:
            return "unclear"
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
    subset: str = ""
    """`clean` or `contaminated`: samples that no or some model's training corpus contains."""
    subsets: tuple["Comparison", ...] = ()
    """The same comparison on these subsets; empty if no sample is contaminated."""
    unchecked: tuple[str, ...] = ()
    """Models whose samples were not checked for contamination."""
    truncated: dict[str, int] = field(default_factory=dict)
    """Number of truncated prompts of each model that has any."""
    other_data: dict[str, list[str]] = field(default_factory=dict)
    """Data files of each model with another content than the first model's."""

    @property
    def title(self) -> str:
        """Return the task, and the protocol if there are several."""
        return f"{self.task}, {self.protocol}" if self.protocol else self.task

    @property
    def clean(self) -> "Comparison | None":
        """Return the comparison on the clean subset, if there is one."""
        return next((part for part in self.subsets if part.subset == "clean"), None)

    @property
    def metric(self) -> str:
        """Return the name of the metric that is compared."""
        return self.task_type.primary_metric

    @property
    def columns(self) -> list[str]:
        """Return the metrics of any model, in order.

        Without those by length that are the same as the primary one for all models: all options are
        letters.
        """
        names = dict.fromkeys(itertools.chain.from_iterable(row.metrics for row in self.rows))
        return [
            name
            for name in names
            if name not in _BY_LENGTH
            or any(row.metrics.get(name) != row.metrics[self.metric] for row in self.rows)
        ]


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
    scores = {model.name: model.tasks[name] for model in models}
    first, *others = models
    for model in others:
        _check_same_samples(name, first.name, scores[first.name], model.name, scores[model.name])
    compared = _comparison(name, scores)
    return replace(
        compared,
        protocol=protocol,
        subsets=tuple(
            replace(subset, protocol=protocol) for subset in _by_contamination(name, scores)
        ),
        unchecked=tuple(model for model, entry in scores.items() if entry.contaminated is None),
        truncated={
            model: entry.truncated_prompts
            for model, entry in scores.items()
            if entry.truncated_prompts
        },
        other_data={
            model.name: files
            for model in others
            if (files := comparability.other_data_files(first, model, name))
        },
    )


def _comparison(name: str, by_model: dict[str, TaskScores]) -> Comparison:
    """Return the comparison of models with the first one, without correction of the p-values."""
    base, *_ = by_model.values()
    rows = []
    for model, scores in by_model.items():
        row = Row(model, scores.metrics, None, base.task_type.lower_is_better)
        if scores is not base:
            row = replace(row, difference=difference(base, scores), p=p_value(base, scores))
        rows.append(row)
    return Comparison(name, base.task_type, len(base.samples), base.chance, rows)


def _by_contamination(name: str, by_model: dict[str, TaskScores]) -> list[Comparison]:
    """Return the comparisons on the clean and on the contaminated samples.

    A sample is contaminated if one model's check found it. The contaminated subset is not tested.
    """
    base, *_ = by_model.values()
    found = contaminated_by_any(by_model.values()) or frozenset()
    contaminated = found & base.samples.keys()
    clean = base.samples.keys() - contaminated
    subsets = []
    for subset, ids in (("clean", clean), ("contaminated", contaminated)):
        if contaminated and ids:
            parts = {model: scores.subset(ids) for model, scores in by_model.items()}
            subsets.append(replace(_comparison(name, parts), subset=subset))
    return [subset if subset.subset == "clean" else _untested(subset) for subset in subsets]


def _untested(compared: Comparison) -> Comparison:
    rows = [replace(row, difference=None, p=None) for row in compared.rows]
    return replace(compared, rows=rows)


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
    """Return the comparisons with the p-values corrected for all tests, also those on subsets."""
    p_values: dict[str, float] = {}
    for compared in with_subsets(comparisons):
        for row in compared.rows:
            if row.p is not None:
                p_values[_test_name(compared, row)] = row.p
    corrected = significance.holm(p_values)
    return [_with_corrected(compared, corrected) for compared in comparisons]


def _with_corrected(compared: Comparison, corrected: Mapping[str, float]) -> Comparison:
    rows = [
        replace(row, corrected_p=corrected.get(_test_name(compared, row))) for row in compared.rows
    ]
    subsets = tuple(_with_corrected(subset, corrected) for subset in compared.subsets)
    return replace(compared, rows=rows, subsets=subsets)


def with_subsets(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons, each followed by those on its subsets."""
    result: list[Comparison] = []
    for compared in comparisons:
        result += [compared, *compared.subsets]
    return result


def number_of_tests(comparisons: Sequence[Comparison]) -> int:
    """Return the number of paired tests that the p-values are corrected for."""
    rows = [row for compared in with_subsets(comparisons) for row in compared.rows]
    return sum(row.p is not None for row in rows)


def _test_name(compared: Comparison, row: Row) -> str:
    return "\n".join([compared.title, compared.subset, row.model])


_NOT_COMPARABLE = (
    "these scores are not comparable (runs of one model under several protocols are reported"
    " together if `galen evaluate` gave them the same --name)"
)


def _check_same_protocol(first: ModelScores, second: ModelScores) -> None:
    if first.protocol != second.protocol:
        raise DataError(
            f"{first.name} was scored with the protocol {first.protocol}, {second.name} with"
            f" {second.protocol}; {_NOT_COMPARABLE}"
        )
    different = [
        key for key, value in first.settings.items() if second.settings.get(key, value) != value
    ]
    if different:
        raise DataError(
            f"{first.name} was scored with {_settings(first, different)}, {second.name} with"
            f" {_settings(second, different)}; {_NOT_COMPARABLE}"
        )


def _settings(model: ModelScores, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {json.dumps(model.settings[key], ensure_ascii=False)}" for key in keys)


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
