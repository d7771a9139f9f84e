"""All tasks of a model against its base: verdicts, means over tasks, and sentences."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.metrics import hierarchical
from evaluation.metrics.hierarchical import Overall
from evaluation.paired_verdict import judged_tasks, prompt_choice, task_verdict
from evaluation.paired_verdict.task_verdict import LOSS, TIE, WIN, TaskVerdict
from evaluation.reporting.report_inputs import ModelScores
from evaluation.reporting.verdicts import signed
from evaluation.scoring.rubric_task import Rubric
from galen.errors import DataError, UsageError

GENERAL = (
    "mmlu_general",
    "truthfulqa",
    "lm_eval:arc_",
    "lm_eval:gsm8k",
    "lm_eval:hellaswag",
    "lm_eval:ifeval",
    "lm_eval:mmlu_pro",
    "lm_eval:truthfulqa",
    "lm_eval:wikitext",
    "lm_eval:winogrande",
)
"""Beginnings of the names of tasks that are general unless the user says which are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A model against its base."""

    base: str
    model: str
    tasks: list[TaskVerdict]
    medical: Overall | None
    """Mean difference over the medical tasks; None without any."""
    general: Overall | None
    unchecked: tuple[str, ...] = ()
    """Tasks that the two models do not share."""

    def of(self, is_general: bool) -> list[TaskVerdict]:
        """Return the general tasks, or the medical ones."""
        return [item for item in self.tasks if item.is_general == is_general]

    def count(self, outcome: str, is_general: bool) -> int:
        """Return how many tasks have an outcome."""
        return sum(item.outcome == outcome for item in self.of(is_general))


def judge(
    runs: Sequence[ModelScores],
    base: str,
    model: str,
    general: Collection[str] | None = None,
    validation_fraction: float = prompt_choice.VALIDATION_FRACTION,
    judges: Sequence[Path] = (),
) -> Study:
    """Return the verdict on a model.

    Args:
        runs: of both models, each under all candidate prompts; the first is the fixed one.
        base: name of the model that the other was made from.
        model: name of the other.
        general: tasks that are not medical; None for those of `GENERAL`.
        validation_fraction: of each task's samples, to choose prompts on.
        judges: folders of judges that have scored answers of both.

    Raises:
        UsageError: the runs lack a model or a task.
        DataError: the runs do not compare.
    """
    base_runs = _runs_of(runs, base)
    model_runs = _runs_of(runs, model)
    base_tasks = _tasks_of(base_runs)
    model_tasks = _tasks_of(model_runs)
    shared = [task for task in base_tasks if task in model_tasks]
    if not shared:
        raise DataError(f"{base} and {model} were scored on no task in common")
    _check_general(general, shared)
    verdicts = [
        task_verdict.judge_task(
            task,
            prompt_choice.candidates(base_runs, task),
            prompt_choice.candidates(model_runs, task),
            (base, model),
            is_general(task, general),
            validation_fraction,
        )
        for task in shared
        if not _is_unscored(base_runs, task)
    ]
    verdicts += judged_tasks.judge_tasks(judges, base, model)
    if not verdicts:
        raise DataError(
            f"{base} and {model} share answers that no judge has scored: see `galen judge`, and"
            " give --judges"
        )
    verdicts = task_verdict.corrected(verdicts)
    return Study(
        base=base,
        model=model,
        tasks=verdicts,
        medical=_overall([item for item in verdicts if not item.is_general]),
        general=_overall([item for item in verdicts if item.is_general]),
        unchecked=tuple(task for task in {**base_tasks, **model_tasks} if task not in shared),
    )


def _runs_of(runs: Sequence[ModelScores], model: str) -> list[ModelScores]:
    """Return the runs of a model.

    Raises:
        UsageError: there are none.
    """
    of_model = [run for run in runs if run.model == model]
    if not of_model:
        available = ", ".join(dict.fromkeys(run.model for run in runs))
        raise UsageError(f"no run is of a model named {model}; the runs are of {available}")
    prompt_choice.check_same_model(of_model)
    return of_model


def _tasks_of(runs: Sequence[ModelScores]) -> dict[str, None]:
    """Return the tasks of some runs in their order, as the keys of a dictionary."""
    return dict.fromkeys(task for run in runs for task in run.tasks)


def _is_unscored(runs: Sequence[ModelScores], task: str) -> bool:
    """Return whether a task has answers, whose scores come from a judge."""
    types = [run.tasks[task].task_type.name for run in runs if task in run.tasks]
    return types[0] == Rubric.name


def is_general(task: str, general: Collection[str] | None) -> bool:
    """Return whether a task is not medical."""
    if general is not None:
        return task in general
    return task.startswith(GENERAL)


def _check_general(general: Collection[str] | None, tasks: Sequence[str]) -> None:
    unknown = [task for task in general or () if task not in tasks]
    if unknown:
        raise UsageError(f"--general: {unknown[0]} is not one of the tasks: {', '.join(tasks)}")


def _overall(verdicts: Sequence[TaskVerdict]) -> Overall | None:
    """Return the mean difference over the tasks whose metric is a fraction."""
    shown = [item for item in verdicts if item.is_in_points]
    if not shown:
        return None
    values = [item.tuned.values for item in shown]
    overall = hierarchical.mean_difference(values, [item.tuned.resampled for item in shown])
    if len(shown) == 1:  # the same interval as in the task's row
        return replace(overall, of_these_tasks=shown[0].gain)
    return overall


def sentences(study: Study) -> list[str]:
    """Return the verdict in three sentences: gains, losses, and what a tie means."""
    return [
        _gains(study, is_general=False),
        _gains(study, is_general=True),
        _reach(study),
    ]


def _gains(study: Study, *, is_general: bool) -> str:
    tasks = study.of(is_general)
    kind = "general" if is_general else "medical"
    if not tasks:
        missing = "what it forgot" if is_general else "what it learned"
        return f"No {kind} task was scored on both models: {missing} is not known."
    own = "with the same prompt for both"
    if all(item.num_prompts > 1 for item in tasks):
        own = "each model with its own best prompt"
    elif any(item.num_prompts > 1 for item in tasks):
        own = "each model with its own best prompt where there was a choice"
    plural = "s" * (len(tasks) > 1)
    text = f"On {len(tasks)} {kind} task{plural}, {own}, {_outcomes(study, tasks)}"
    overall = study.general if is_general else study.medical
    if overall is None:
        return f"{text}."
    shown = [item.task for item in tasks if item.is_in_points]
    of_task = f" on {shown[0]}" if len(tasks) > 1 else ""
    return f"{text}; {_mean(overall, of_task)}."


def _outcomes(study: Study, tasks: Sequence[TaskVerdict]) -> str:
    """Return how the model compares with its base on tasks that are all medical or all general."""
    if len(tasks) == 1:
        compared = {WIN: "better than", LOSS: "worse than", TIE: "not clearly different from"}
        return f"{study.model} is {compared[tasks[0].outcome]} {study.base}"
    number = Counter(item.outcome for item in tasks)
    return (
        f"{study.model} is better than {study.base} on {number[WIN]}, worse on {number[LOSS]}, and"
        f" not clearly different on {number[TIE]}"
    )


def _mean(overall: Overall, of_task: str) -> str:
    """Return the mean difference in words; `of_task` says of which task if only one has points."""
    fixed = overall.of_these_tasks
    value = signed(fixed.value, "accuracy")
    limits = f"{signed(fixed.low, 'accuracy')} to {signed(fixed.high, 'accuracy')}"
    if overall.tasks < 2:
        return f"the difference{of_task} is {value} points (95 % interval {limits})"
    text = f"the mean difference is {value} points (95 % interval {limits} for these tasks"
    wide = overall.of_such_tasks
    low, high = signed(wide.low, "accuracy"), signed(wide.high, "accuracy")
    return f"{text}, {low} to {high} for tasks like these)"


def _reach(study: Study) -> str:
    reach = [item.minimum_difference for item in study.tasks if item.minimum_difference is not None]
    changed = sum(item.outcome != item.fixed_outcome for item in study.tasks)
    has_tie = any(item.outcome == TIE for item in study.tasks)
    text = "Power" if reach and not has_tie else "A tie is not equality"
    shown = [value for value in reach if value < 1]
    if shown:
        low, high = (f"{100 * value:.1f}" for value in (min(shown), max(shown)))
        sizes = f"of {low} points" if low == high else f"of {low} to {high} points"
        text += f": these test sets detect differences {sizes} with 80 % probability"
    if len(shown) < len(reach):
        number = len(reach) - len(shown)
        text += ", and" if shown else ":"
        text += f" {number} test {'set is' if number == 1 else 'sets are'}"
        text += " too small to detect any difference"
    if any(item.num_prompts > 1 for item in study.tasks):
        text += f"; with the same fixed prompt for both, {changed} of {len(study.tasks)} outcomes"
        text += " would differ"
    return f"{text}."


def as_dict(study: Study) -> dict[str, Any]:
    """Return a study, of JSON types: every figure of the page, with the folders of the samples."""
    return {
        "base": study.base,
        "model": study.model,
        "sentences": sentences(study),
        "medical": _overall_dict(study.medical),
        "general": _overall_dict(study.general),
        "tasks": [_task_dict(item) for item in study.tasks],
        "not_shared": list(study.unchecked),
    }


def _overall_dict(overall: Overall | None) -> dict[str, Any] | None:
    if overall is None:
        return None
    value = asdict(overall)
    if overall.tasks < 2:  # unlimited, which JSON has no number for
        value["of_such_tasks"] = None
    return value


def _task_dict(item: TaskVerdict) -> dict[str, Any]:
    value = asdict(item)
    for key in ("tuned", "fixed", "clean"):
        if value[key] is not None:
            del value[key]["values"], value[key]["resampled"]  # from the sample logs
    return {**value, "outcome": item.outcome, "fixed_outcome": item.fixed_outcome}
