"""Win, tie or loss of a model against its base on one task, with what the score rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evaluation.metrics import chosen_prompts, power, significance
from evaluation.metrics.intervals import Estimate, Floats
from evaluation.paired_verdict import prompt_choice
from evaluation.paired_verdict.prompt_choice import Candidate, Split
from evaluation.reporting import comparability
from evaluation.reporting.comparison import ALPHA, is_fraction
from evaluation.reporting.report_inputs import TaskScores, conditions_name, contaminated_by_any

WIN, TIE, LOSS = "win", "tie", "loss"
_QUALITY = ("unparsed", "reached_limit", "truncated_thinking", "forced", "tokens_per_answer")
"""Metrics beside a score, where a task has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """Two models on the same samples."""

    base: Estimate
    model: Estimate
    difference: Estimate
    """The model's score minus the base's."""
    p: float
    values: tuple[float, ...]
    """Of each sample, the difference of the compared values; positive where the model is better."""
    resampled: Floats | None = None
    """The mean of `values` in resamples with the choice of prompts; None where none was chosen."""
    standard_error: float | None = None
    """Of the difference, with the error of the choice of prompts; None where none was chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskVerdict:
    """A task of a study."""

    task: str
    is_general: bool
    metric: str
    unit: str
    lower_is_better: bool
    samples: int
    validation_samples: int
    """Samples that the prompts were chosen on."""
    num_prompts: int
    base_prompt: str
    model_prompt: str
    tuned: Paired
    """Each model with its own best prompt."""
    fixed: Paired
    """Both with the first prompt, on the same samples."""
    clean: Paired | None = None
    """Tuned, on the samples that no corpus contains; None where that is not known or all are."""
    contaminated: int | None = None
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of base and model: unparsed answers, answers that the limit ended, order bias …"""
    notes: tuple[str, ...] = ()
    folders: tuple[str, str] = ("", "")
    """Where the samples of base and model are."""
    corrected_p: float = 1.0
    corrected_fixed_p: float = 1.0
    minimum_difference: float | None = None
    """Smallest true difference that would be detected with 80 % probability after correction.

    1 where none would be; None where the metric is no fraction.
    """

    @property
    def outcome(self) -> str:
        """Win, tie or loss of the model with tuned prompts."""
        return outcome(self.tuned, self.corrected_p, self.lower_is_better)

    @property
    def fixed_outcome(self) -> str:
        """Win, tie or loss with the first prompt."""
        return outcome(self.fixed, self.corrected_fixed_p, self.lower_is_better)

    @property
    def gain(self) -> Estimate:
        """The difference with tuned prompts, positive where the model is better."""
        found = self.tuned.difference
        if not self.lower_is_better:
            return found
        return Estimate(-found.value, -found.high, -found.low)

    @property
    def reach(self) -> str:
        """The smallest difference that would be detected, in words."""
        if self.minimum_difference is None:
            return "–"
        if self.minimum_difference >= 1:
            return "none"
        return f"{100 * self.minimum_difference:.1f} points"

    @property
    def is_in_points(self) -> bool:
        """Whether the metric is a fraction, so that its differences are percentage points."""
        return is_fraction(self.metric)


def outcome(paired: Paired, corrected_p: float, lower_is_better: bool) -> str:
    """Return win or loss where the corrected p-value and the interval show it, else tie."""
    if corrected_p >= ALPHA or paired.difference.low <= 0 <= paired.difference.high:
        return TIE
    return WIN if (paired.difference.value < 0) == lower_is_better else LOSS


def paired(base: TaskScores, model: TaskScores, ids: Sequence[str]) -> Paired:
    """Return two models' scores and their difference on some samples."""
    kept = frozenset(ids)
    first = base.subset(kept)
    second = model.subset(kept)
    task_type = base.task_type
    key = task_type.compared_key
    before = [float(sample[key]) for sample in first.samples.values()]
    after = [float(second.samples[id_][key]) for id_ in first.samples]
    sign = -1.0 if task_type.lower_is_better else 1.0
    return Paired(
        base=first.metrics[task_type.primary_metric],
        model=second.metrics[task_type.primary_metric],
        difference=task_type.difference(first.samples, second.samples),
        p=significance.paired_p_value(before, after),
        values=tuple(sign * (b - a) for a, b in zip(before, after, strict=True)),
    )


def _tuned(
    candidates: tuple[Mapping[str, Candidate], Mapping[str, Candidate]],
    own: tuple[str, str],
    split: Split,
) -> Paired:
    """Return two models with their own prompts; interval and p-value include the choice's error.

    The p-value is the larger one of the paired test, which takes the choice for granted, and of the
    bootstrap with the choice.
    """
    base, model = candidates
    found = paired(base[own[0]].scores, model[own[1]].scores, split.test)
    if not split.validation or not is_fraction(base[own[0]].scores.task_type.primary_metric):
        return found
    prompts = list(base)
    with_choice = chosen_prompts.difference(
        (_values(base, prompts, split.validation), _values(model, prompts, split.validation)),
        (_values(base, prompts, split.test), _values(model, prompts, split.test)),
        (prompts.index(own[0]), prompts.index(own[1])),
    )
    estimate = with_choice.difference
    if base[own[0]].scores.task_type.lower_is_better:  # the bootstrap's is positive if better
        estimate = Estimate(-estimate.value, -estimate.high, -estimate.low)
    return replace(
        found,
        difference=estimate,
        p=max(found.p, with_choice.p),
        resampled=with_choice.resampled,
        standard_error=with_choice.standard_error,
    )


def _values(
    candidates: Mapping[str, Candidate], prompts: Sequence[str], ids: Sequence[str]
) -> chosen_prompts.Scores:
    """Return the scores of samples under each prompt, (prompts, samples); higher is better."""
    return np.array([candidates[prompt].values(ids) for prompt in prompts])


def judge_task(
    task: str,
    base: Mapping[str, Candidate],
    model: Mapping[str, Candidate],
    names: tuple[str, str],
    is_general: bool,
    validation_fraction: float,
) -> TaskVerdict:
    """Return the verdict on a task, its p-values not corrected yet.

    Args:
        task: its name.
        base: the base's candidates by prompt.
        model: the other model's.
        names: of both models.
        is_general: whether the task is not medical.
        validation_fraction: of the samples, to choose prompts on.

    Raises:
        DataError: the two do not compare, or there are too few samples.
    """
    prompt_choice.check_same(task, names[0], base, names[1], model)
    prompts = list(base)
    ids = list(base[prompts[0]].scores.samples)
    split = prompt_choice.split(task, ids, len(prompts), validation_fraction)
    own = (prompt_choice.best(base, split.validation), prompt_choice.best(model, split.validation))
    chosen = (base[own[0]], model[own[1]])
    task_type = chosen[0].scores.task_type
    by_all = [*base.values(), *model.values()]
    found = contaminated_by_any([candidate.scores for candidate in by_all])
    clean = None
    if found is not None:
        kept = [id_ for id_ in split.test if id_ not in found]
        if kept and len(kept) < len(split.test):
            clean = paired(chosen[0].scores, chosen[1].scores, kept)
    runs = [candidate.run for candidate in base.values()]
    return TaskVerdict(
        task=task,
        is_general=is_general,
        metric=task_type.primary_metric,
        unit=task_type.unit,
        lower_is_better=task_type.lower_is_better,
        samples=len(split.test),
        validation_samples=len(split.validation),
        num_prompts=len(prompts),
        base_prompt=conditions_name(base[own[0]].run, runs),
        model_prompt=conditions_name(base[own[1]].run, runs),
        tuned=_tuned((base, model), own, split),
        fixed=paired(base[prompts[0]].scores, model[prompts[0]].scores, split.test),
        clean=clean,
        contaminated=None if found is None else len(found & frozenset(split.test)),
        quality={
            name: quality(candidate.scores)
            for name, candidate in zip(("base", "model"), chosen, strict=True)
        },
        notes=_notes(task, names, chosen),
        folders=(str(chosen[0].run.folder), str(chosen[1].run.folder)),
    )


def quality(scores: TaskScores) -> dict[str, float]:
    """Return what a score rests on, where it is known, such as unparsed answers and order bias."""
    values = {name: scores.metrics[name].value for name in _QUALITY if name in scores.metrics}
    error = (scores.summary.get("calibration") or {}).get("ece")
    if error is not None:
        values["calibration_error"] = float(error)
    bias = scores.summary.get("order_bias") or {}
    if bias.get("changed_answers"):
        values["changed_by_order"] = float(bias["changed_answers"]["value"])
    return values


def _notes(task: str, names: tuple[str, str], chosen: Sequence[Candidate]) -> tuple[str, ...]:
    notes = []
    for name, candidate in zip(names, chosen, strict=True):
        scores = candidate.scores
        if scores.truncated_prompts:
            notes.append(f"{name}: {scores.truncated_prompts:,} prompts were truncated")
        if scores.summary.get("one_sided"):
            notes.append(f"{name}: {scores.summary['one_sided']}")
    if files := comparability.other_data_files(chosen[0].run, chosen[1].run, task):
        notes.append(
            f"{names[1]} was scored on other data files ({', '.join(files)}) with the same ids and"
            " answers: check that the questions are the same"
        )
    return tuple(notes)


def corrected(verdicts: Sequence[TaskVerdict]) -> list[TaskVerdict]:
    """Return the verdicts of a study with Holm's correction over its tasks, and their power."""
    # by number: two judges may have the same name, and so their tasks
    tuned = significance.holm({str(index): item.tuned.p for index, item in enumerate(verdicts)})
    fixed = significance.holm({str(index): item.fixed.p for index, item in enumerate(verdicts)})
    # the level of the first step of Holm's procedure: what a single difference must reach
    alpha = ALPHA / max(len(verdicts), 1)
    return [
        replace(
            item,
            corrected_p=tuned[str(index)],
            corrected_fixed_p=fixed[str(index)],
            minimum_difference=_minimum_difference(item, alpha),
        )
        for index, item in enumerate(verdicts)
    ]


def _minimum_difference(item: TaskVerdict, alpha: float) -> float | None:
    if not item.is_in_points:
        return None
    smallest = power.minimum_difference(item.tuned.values, alpha)
    if item.tuned.standard_error is None:
        return smallest
    with_choice = power.of_standard_error(item.tuned.standard_error, alpha)
    return min(max(smallest, with_choice), 1.0)
