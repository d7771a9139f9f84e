"""A type of task: its requests, how its replies are scored, summarized and compared.

A new type is a specification in `evaluation.tasks.task`, a subclass of `TaskType`, and a line in
`evaluation.scoring.task_types`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from evaluation.backends.base import Backend
from evaluation.chat_models.conversation import Conversation
from evaluation.metrics import aggregate, intervals
from evaluation.metrics.intervals import Estimate
from evaluation.prompts.template import PromptTemplate
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets.question import Question

Sample = dict[str, Any]
"""A scored sample, one line of the sample log."""
Samples = Mapping[str, Mapping[str, Any]]
"""Scored samples by id."""
TRUNCATED_PROMPT = "truncated_prompt"
"""Key of a sample whose prompt was truncated on the left to the model's context."""
TRUNCATED_PROMPTS = "truncated_prompts"
"""Key of their number in a task's entry of `results.json`."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """The requests of one task in one run, and how replies become scored samples."""

    ask: Callable[..., Iterator[list[Any]]]
    """The method of the backend that replies: `ask(requests, batching)`."""
    requests: list[Any]
    build: Callable[..., Sample]
    """`build(index, *reply)` returns the scored sample of the request at an index."""
    prompts: list[str]
    """The text of each prompt, for OUTPUT/prompts; empty where there is none."""
    encode: Callable[[], list[Any]] | None = None
    """Returns the requests to the backend, where `requests` are something else."""
    truncated: Collection[int] = ()
    """Indices of the prompts that were truncated on the left to the model's context.

    Complete when `ask` has replied.
    """


def correct_difference(first: Samples, second: Samples) -> Estimate:
    """Return the difference of the means of `correct` over the same samples."""
    return intervals.accuracy_difference(
        [sample["correct"] for sample in first.values()],
        [second[id_]["correct"] for id_ in first],
    )


class TaskType(ABC, Generic[T]):
    """A type of tasks; `T` is the type of its specification."""

    name: str
    """The `kind` of a task file."""
    unit: str
    """Plural noun for samples in reports, such as "questions"."""
    primary_metric: str
    """The metric that models are compared by."""
    lower_is_better: bool
    compared_key: str
    """The key of a scored sample whose values are compared by a paired test."""
    uses_protocol: bool
    """Whether the protocol decides its scores."""
    sample_schema: type[BaseModel]
    has_metric_titles: bool = True
    """Whether reports show titles in place of its metrics' names."""

    def of_entry(self, entry: Mapping[str, Any]) -> "TaskType[T]":
        """Return the type for a task's entry in `results.json`, if its metric depends on that."""
        return self

    @abstractmethod
    def input_files(self, task: T, data: Path) -> list[Path]:
        """Return the files below `data` that a task reads.

        Raises:
            DataError: they are missing.
        """

    def identity(self, task: T, data: Path) -> dict[str, Any]:
        """Return what else decides the scores, beside the specification and the files."""
        return {}

    @abstractmethod
    def read_samples(self, task: T, data: Path, limit: int | None) -> list[Any]:
        """Read the samples to score; a type may already apply `limit`."""

    def limited(self, samples: list[Any], limit: int | None) -> list[Any]:
        """Return at most `limit` samples, chosen by a hash of their ids."""
        return samples

    def check_length(self, name: str, task: T, length: int | None) -> None:
        """Check that a model with a context of `length` tokens can read the samples.

        Raises:
            DataError: they are longer.
        """

    @abstractmethod
    def runs(self, task: T, protocol: Protocol) -> list[int]:
        """Return the runs of a task, each named by its seed."""

    @abstractmethod
    def few_shot(
        self, name: str, task: T, data: Path, protocol: Protocol, samples: list[Any]
    ) -> dict[int, FewShotExamples]:
        """Return the few-shot examples of each run.

        Raises:
            UsageError, DataError: there are too few.
        """

    def generates(self, protocol: Protocol) -> bool:
        """Return whether answers are generated."""
        return False

    @abstractmethod
    def job(
        self,
        name: str,
        task: T,
        samples: Sequence[Any],
        examples: FewShotExamples,
        protocol: Protocol,
        run: int,
        backend: Backend,
        conversation: Conversation,
    ) -> Job:
        """Return the requests of one run; `conversation` says how the model is asked.

        Raises:
            DataError: a sample cannot be encoded.
        """

    def options_template(self, task: T, protocol: Protocol) -> PromptTemplate | None:
        """Return the template that shows a sample's options; None for samples without options."""
        return None

    def settings(self, task: T, protocol: Protocol) -> dict[str, Any]:
        """Return what the task sets of the protocol; scores under other settings do not compare."""
        return {}

    @abstractmethod
    def entry(
        self, by_run: Sequence[Sequence[Sample]], runs: Sequence[int], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Return the metrics and other keys of a task's entry in `results.json`.

        Args:
            by_run: scored samples of each run, in the same order in each.
            runs: names of the runs.
            samples: the questions or documents.
        """

    @abstractmethod
    def estimate(self, by_run: Sequence[Sequence[Sample]]) -> Estimate:
        """Return the primary metric."""

    def summarize(
        self,
        by_run: Sequence[Sequence[Sample]],
        runs: Sequence[int],
        samples: Sequence[Any],
        contaminated: Collection[str] | None,
    ) -> dict[str, Any]:
        """Return a task's entry of `results.json`.

        Args:
            by_run: scored samples of each run, in the same order in each.
            runs: names of the runs.
            samples: the questions or documents.
            contaminated: ids of samples that the training corpus contains, or None where
                contamination was not checked.
        """
        entry = self.entry(by_run, runs, samples)
        entry[TRUNCATED_PROMPTS] = sum(
            any(TRUNCATED_PROMPT in run[index] for run in by_run) for index in range(len(samples))
        )
        if contaminated is not None:
            entry |= aggregate.by_contamination(by_run, contaminated, self.estimate)
        return {"kind": self.name, "samples": len(by_run[0]), **entry}

    def write_files(
        self,
        name: str,
        by_run: Sequence[Sequence[Sample]],
        samples: Sequence[Any],
        protocol: Protocol,
        model: Mapping[str, str],
        output: Path,
    ) -> list[Path]:
        """Write further files of a finished task below `output`; return them.

        Args:
            name: of the task.
            by_run: scored samples of each run, in the same order in each.
            samples: the questions or documents.
            protocol: the run's.
            model: model folder (`pretrained`), and `adapter`, `backend`, `dtype`, `device`.
            output: folder of the run.

        Raises:
            DataError: a file cannot be written.
        """
        return []

    @abstractmethod
    def difference(self, first: Samples, second: Samples) -> Estimate:
        """Return the second model's primary metric minus the first's on the same samples.

        The interval is from a paired bootstrap.
        """

    def mismatch(self, first: Samples, second: Samples) -> str:
        """Return why two models' scores on the same ids are not comparable; empty if they are."""
        return ""


def sample_of(question: Question, prediction: str | None) -> Sample:
    """Return what the samples of all questions have in common."""
    sample: Sample = {
        "id": question.id,
        "answer": question.answer,
        "prediction": prediction,
        "correct": prediction == question.answer,
    }
    if question.subject not in ("", "en"):
        sample["subject"] = question.subject
    if question.language not in ("", "en"):
        sample["language"] = question.language
    if "," in question.answer:
        chosen = frozenset(prediction.split(",")) if prediction else frozenset()
        sample["credit"] = len(chosen & question.answers) / len(chosen | question.answers)
    return sample
