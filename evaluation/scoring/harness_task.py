"""Tasks of lm-evaluation-harness: requests through Galen's backends, samples, metrics, files."""

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.backends.base import Backend
from evaluation.chat_models.conversation import Conversation
from evaluation.harness import benchmark as benchmarks
from evaluation.harness import metrics, results
from evaluation.harness.benchmark import ChatFormat, Document
from evaluation.metrics.intervals import Estimate
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.scoring.multiple_choice import finite
from evaluation.scoring.results_schema import ScoredHarnessDocument
from evaluation.scoring.task_type import Job, Sample, Samples, TaskType
from evaluation.tasks.task import LmEvalTask

FOLDER = "lm_eval"
"""Below the output folder: the harness' own files."""


class HarnessTask(TaskType[LmEvalTask]):
    """A task or group of lm-evaluation-harness.

    Metric, direction and aggregation depend on the task: see `of_entry`.
    """

    name = "lm_eval"
    unit = "documents"
    primary_metric = ""
    lower_is_better = False
    compared_key = "score"
    uses_protocol = False
    sample_schema = ScoredHarnessDocument
    has_metric_titles = False
    aggregation = "mean"

    def of_entry(self, entry: Mapping[str, Any]) -> "HarnessTask":
        """Return the type with the primary metric of a task's entry."""
        of_task = copy.copy(self)
        of_task.primary_metric = str(entry.get("primary_metric"))
        of_task.aggregation = str(entry.get("aggregation"))
        of_task.lower_is_better = entry.get("lower_is_better") is True
        return of_task

    def input_files(self, task: LmEvalTask, data: Path) -> list[Path]:
        """Return the files of the data sets."""
        return benchmarks.load(task, data).files

    def identity(self, task: LmEvalTask, data: Path) -> dict[str, Any]:
        """Return the version of the harness, and a hash of each task's definition."""
        return benchmarks.load(task, data).definition()

    def read_samples(self, task: LmEvalTask, data: Path, limit: int | None) -> list[Any]:
        """Return the documents: of each task the first `limit`, as in the harness."""
        return benchmarks.load(task, data).documents(limit)

    def runs(self, task: LmEvalTask, protocol: Protocol) -> list[int]:
        """Return the only run."""
        return [0]

    def few_shot(
        self, name: str, task: LmEvalTask, data: Path, protocol: Protocol, samples: list[Any]
    ) -> dict[int, FewShotExamples]:
        """Return none: the harness chooses its few-shot examples."""
        return {0: {}}

    def job(
        self,
        name: str,
        task: LmEvalTask,
        samples: Sequence[Document],
        examples: FewShotExamples,
        protocol: Protocol,
        run: int,
        backend: Backend,
        conversation: Conversation,
    ) -> Job:
        """Return the requests of all documents, as the task defines them."""
        from evaluation.harness.lm import BackendLM

        model = BackendLM(backend, name, conversation)
        benchmark = samples[0].benchmark
        instances = benchmark.requests(model, samples, chat_format(protocol, conversation))

        def build(index: int, responses: list[list[Any]]) -> Sample:
            _check_finite(name, samples[index], responses)
            sample = benchmark.sample(samples[index], instances[index], responses)
            return sample | model.answers.pop(index, {})

        prompts = [str(of_document[0].args[0]) for of_document in instances]
        return Job(
            model.answer,
            instances,
            build,
            prompts,
            lambda: model.encode(instances),
            truncated=model.truncated,
        )

    def settings(self, task: LmEvalTask, protocol: Protocol) -> dict[str, Any]:
        """Return how prompts become conversations."""
        return {
            "chat_template": protocol.chat_template,
            "system_prompt": protocol.system_prompt,
            "fewshot_as_multiturn": protocol.fewshot_as_multiturn,
        }

    def entry(
        self, by_run: Sequence[Sequence[Sample]], runs: Sequence[int], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Return the harness' metrics with intervals, of a group also by task."""
        benchmark = samples[0].benchmark
        evaluated = results.evaluate(benchmark, samples, by_run[0], ChatFormat())
        return results.entry(benchmark, evaluated, by_run[0])

    def estimate(self, by_run: Sequence[Sequence[Sample]]) -> Estimate:
        """Return the primary metric by the samples' scores."""
        return metrics.primary_estimate(metrics.scores_of(by_run[0]), self.aggregation)

    def summarize(
        self,
        by_run: Sequence[Sequence[Sample]],
        runs: Sequence[int],
        samples: Sequence[Any],
        contaminated: Collection[str] | None,
    ) -> dict[str, Any]:
        """Return the entry of `results.json`, with the primary metric of the task."""
        of_task = self.of_entry({"aggregation": samples[0].benchmark.primary.aggregation})
        return super(HarnessTask, of_task).summarize(by_run, runs, samples, contaminated)

    def write_files(
        self,
        name: str,
        by_run: Sequence[Sequence[Sample]],
        samples: Sequence[Any],
        protocol: Protocol,
        model: Mapping[str, str],
        output: Path,
    ) -> list[Path]:
        """Write the harness' own `results_*.json` and `samples_*.jsonl`."""
        benchmark = samples[0].benchmark
        chat = chat_format(protocol, benchmark.conversation)
        folder = output / FOLDER / benchmark.name.replace("/", "_")
        if benchmark.conversation is None and folder.is_dir():
            # samples of an earlier call: its files have the prompts
            return sorted(path for path in folder.rglob("*") if path.is_file())
        evaluated = results.evaluate(benchmark, samples, by_run[0], chat)
        return results.write(folder, benchmark, evaluated, model, chat)

    def difference(self, first: Samples, second: Samples) -> Estimate:
        """Return the difference of the primary metric by the samples' scores."""
        return metrics.primary_difference(
            metrics.scores_of(list(first.values())),
            metrics.scores_of([second[id_] for id_ in first]),
            self.aggregation,
        )

    def mismatch(self, first: Samples, second: Samples) -> str:
        """Return why the metric is not comparable: the weights differ."""
        if all(sample.get("weight") == second[id_].get("weight") for id_, sample in first.items()):
            return ""
        return "were scored on different texts; score both on the same data"


def chat_format(protocol: Protocol, conversation: Conversation | None) -> ChatFormat:
    """Return how prompts become conversations under a protocol."""
    return ChatFormat(
        template=conversation is not None and bool(conversation.template),
        system=protocol.system_prompt or None,
        multiturn=protocol.fewshot_as_multiturn,
    )


def _check_finite(name: str, document: Document, responses: Sequence[Sequence[Any]]) -> None:
    """Check log-likelihoods.

    Raises:
        DataError: one is not finite.
    """
    of = f"{name}, document {document.id}"
    for of_instance in responses:
        for response in of_instance:
            if isinstance(response, tuple):
                finite([response[0]], of)
            elif isinstance(response, float):
                finite([response], of)
