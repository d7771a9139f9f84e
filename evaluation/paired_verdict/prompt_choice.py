"""The prompt with which each model answers best, chosen on samples that are then not scored.

A prompt is a protocol with its settings: wording, few-shot examples and their draw, chat template.
With few models' prompts tuned, a comparison favors the model that they were written for: all models
get the same candidates, and each its own choice.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from evaluation.reporting import comparability
from evaluation.reporting.report_inputs import ModelScores, TaskScores
from galen.errors import DataError, UsageError

VALIDATION_FRACTION = 0.2
MIN_VALIDATION = 20
"""Samples below which a choice among prompts would be one by chance."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model's scores on a task under one prompt."""

    run: ModelScores
    scores: TaskScores

    @property
    def conditions(self) -> str:
        """The prompt: equal for all models asked in the same way."""
        task = self.scores.summary.get("settings", {})
        if not self.scores.task_type.uses_protocol:
            return json.dumps(task, sort_keys=True)
        return json.dumps([self.run.protocol, self.run.settings, task], sort_keys=True)

    def values(self, ids: Collection[str]) -> list[float]:
        """Return the compared values of some samples, negative where lower is better."""
        task_type = self.scores.task_type
        sign = -1.0 if task_type.lower_is_better else 1.0
        return [sign * float(self.scores.samples[id_][task_type.compared_key]) for id_ in ids]


def check_same_model(runs: Sequence[ModelScores]) -> None:
    """Check that runs with the same model name are of the same weights, where these are recorded.

    Raises:
        UsageError: they are not.
    """
    first, *others = runs
    for run in others:
        if comparability.other_weights(first, run):
            raise UsageError(
                f"{first.folder} and {run.folder} have different models, {first.path} and"
                f" {run.path}, both named {run.model}: give one another --name of galen evaluate"
            )


def candidates(runs: Sequence[ModelScores], task: str) -> dict[str, Candidate]:
    """Return a model's candidates for a task by prompt, in the order of the runs."""
    found: dict[str, Candidate] = {}
    for run in runs:
        if task in run.tasks:
            candidate = Candidate(run, run.tasks[task])
            found.setdefault(candidate.conditions, candidate)
    return found


def check_same(
    task: str,
    first: str,
    base: Mapping[str, Candidate],
    second: str,
    other: Mapping[str, Candidate],
) -> None:
    """Check that two models were tried with the same prompts on the same samples.

    Raises:
        DataError: they were not.
    """
    if missing := base.keys() ^ other.keys():
        both = (len(base), len(other))
        raise DataError(
            f"task {task!r}: {first} was scored under {both[0]} prompts, {second} under {both[1]},"
            f" {len(missing)} of them not shared; every model needs the same candidates: score both"
            " under the same protocols and settings"
        )
    reference = next(iter(base.values())).scores
    for name, by_prompt in ((first, base), (second, other)):
        for candidate in by_prompt.values():
            if candidate.scores.samples.keys() == reference.samples.keys():
                samples = candidate.scores.samples
                if reason := reference.task_type.mismatch(reference.samples, samples):
                    raise DataError(
                        f"task {task!r}: {first} and {name} ({candidate.run.folder}) {reason}"
                    )
            else:
                raise DataError(
                    f"task {task!r}: {candidate.run.folder} ({name}) has other samples than the"
                    " other runs; score all on the same data"
                )


@dataclass(frozen=True, slots=True)
class Split:
    """The samples that prompts are chosen on, and those that are scored."""

    validation: tuple[str, ...]
    test: tuple[str, ...]


def split(task: str, ids: Sequence[str], num_prompts: int, fraction: float) -> Split:
    """Divide a task's samples by a hash of their ids; all are scored where there is no choice.

    Raises:
        DataError: so few samples are left to choose on that chance would decide.
    """
    if num_prompts == 1:
        return Split((), tuple(ids))
    order = sorted(ids, key=lambda id_: hashlib.sha256(f"validation\n{id_}".encode()).digest())
    number = round(fraction * len(order))
    if number < MIN_VALIDATION or len(order) - number < MIN_VALIDATION:
        raise DataError(
            f"task {task!r}: {number} of {len(order)} samples to choose among {num_prompts} prompts"
            f" are too few; {MIN_VALIDATION} are needed, and as many to score: leave the task out,"
            " or score it under one prompt"
        )
    chosen = frozenset(order[:number])
    return Split(
        tuple(id_ for id_ in ids if id_ in chosen),
        tuple(id_ for id_ in ids if id_ not in chosen),
    )


def best(by_prompt: Mapping[str, Candidate], validation: Sequence[str]) -> str:
    """Return the prompt with the best mean on the validation samples; of equal ones the first."""
    if not validation:
        return next(iter(by_prompt))
    return max(by_prompt, key=lambda prompt: sum(by_prompt[prompt].values(validation)))
