"""Perplexity: requests for documents, and scored documents from log-likelihoods."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import encoding
from evaluation.backends.base import Backend
from evaluation.chat_models.conversation import Conversation
from evaluation.metrics import aggregate, intervals
from evaluation.metrics.intervals import Estimate
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import documents
from evaluation.scoring.multiple_choice import finite
from evaluation.scoring.results_schema import ScoredDocument
from evaluation.scoring.task_type import Job, Sample, Samples, TaskType
from evaluation.tasks.task import PerplexityTask
from galen.errors import DataError


class Perplexity(TaskType[PerplexityTask]):
    """Perplexity on documents."""

    name = "perplexity"
    unit = "documents"
    primary_metric = "perplexity"
    lower_is_better = True
    compared_key = "nll"
    uses_protocol = False
    sample_schema = ScoredDocument

    def input_files(self, task: PerplexityTask, data: Path) -> list[Path]:
        """Return the files of documents."""
        return documents.files(data / task.documents)

    def read_samples(self, task: PerplexityTask, data: Path, limit: int | None) -> list[Any]:
        """Read the documents, at most `limit`."""
        limits = [number for number in (task.max_documents, limit) if number is not None]
        return documents.read(data / task.documents, min(limits, default=None))

    def check_length(self, name: str, task: PerplexityTask, length: int | None) -> None:
        """Check that the model can read `max_tokens` tokens."""
        if length is not None and task.max_tokens > length:
            raise DataError(
                f"task {name}: max_tokens is {task.max_tokens}, but the model reads at most"
                f" {length} tokens"
            )

    def runs(self, task: PerplexityTask, protocol: Protocol) -> list[int]:
        """Return the only run."""
        return [0]

    def few_shot(
        self,
        name: str,
        task: PerplexityTask,
        data: Path,
        protocol: Protocol,
        samples: list[Any],
    ) -> dict[int, FewShotExamples]:
        """Return none: documents have no few-shot examples."""
        return {0: {}}

    def job(
        self,
        name: str,
        task: PerplexityTask,
        samples: Sequence[documents.Document],
        examples: FewShotExamples,
        protocol: Protocol,
        run: int,
        backend: Backend,
        conversation: Conversation,
    ) -> Job:
        """Return a request for each document."""
        self.check_length(name, task, backend.context_length)
        requests: list[encoding.Request] = []
        sizes: list[int] = []
        for document in samples:
            request, size = encoding.encode_document(
                backend.tokenizer, document.text, task.max_tokens
            )
            requests.append(request)
            sizes.append(size)

        def build(index: int, values: list[float]) -> Sample:
            return perplexity_sample(samples[index], requests[index], sizes[index], values)

        return Job(backend.log_likelihoods, requests, build, [])

    def entry(
        self, by_run: Sequence[Sequence[Sample]], runs: Sequence[int], samples: Sequence[Any]
    ) -> dict[str, Any]:
        """Return perplexity and bits per byte, also by source."""
        return aggregate.perplexity_entry(by_run[0])

    def estimate(self, by_run: Sequence[Sequence[Sample]]) -> Estimate:
        """Return the perplexity."""
        nll = [sample["nll"] for sample in by_run[0]]
        tokens = [sample["tokens"] for sample in by_run[0]]
        return intervals.perplexity(nll, tokens)

    def difference(self, first: Samples, second: Samples) -> Estimate:
        """Return the difference of the perplexities."""
        return intervals.perplexity_difference(
            [sample["nll"] for sample in first.values()],
            [second[id_]["nll"] for id_ in first],
            [sample["tokens"] for sample in first.values()],
        )

    def mismatch(self, first: Samples, second: Samples) -> str:
        """Return why perplexities are not comparable: the tokens differ."""
        if all(sample["tokens"] == second[id_]["tokens"] for id_, sample in first.items()):
            return ""
        return "split the documents into different tokens; their perplexities are not comparable"


def perplexity_sample(
    document: documents.Document, request: encoding.Request, size: int, values: list[float]
) -> Sample:
    """Return `{"id", "nll" (nats), "tokens", "bytes"}`, and the document's source if it has one."""
    [value] = finite(values, f"document {document.id}")
    sample: Sample = {
        "id": document.id,
        "nll": -value,
        "tokens": len(request.continuations[0]),
        "bytes": size,
    }
    if document.source:
        sample["subject"] = document.source
    return sample
