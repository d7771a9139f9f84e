"""From a task and its samples to scored samples. Knows no model: a backend replies to requests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import encoding
from evaluation.backends.base import Backend, Part
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import documents, jsonl, question, rows
from evaluation.scoring import multiple_choice
from evaluation.scoring.multiple_choice import Job, Sample
from evaluation.scoring.sample_log import SampleLog
from evaluation.tasks.task import PerplexityTask, Task
from galen.atomic import write_text
from galen.errors import DataError
from galen.progress import Progress


def input_files(task: Task, data: Path) -> list[Path]:
    """Return the files below `data` that a task reads.

    Raises:
        DataError: they are not there.
    """
    if isinstance(task, PerplexityTask):
        return documents.files(data / task.documents)
    found = rows.files(task.source(data, task.file))
    named = [data / name for name in (task.ids, task.fewshot_examples) if name]
    for path in named:
        if not path.is_file():
            raise DataError(f"there is no file {path}")
    if task.fewshot_source and not task.fewshot_examples:
        found += rows.files(task.source(data, task.fewshot_source))
    return list(dict.fromkeys(found + named))


def read_samples(task: Task, data: Path, limit: int | None) -> list[Any]:
    """Read all of a task's questions, or its documents, of these at most `limit`."""
    if not isinstance(task, PerplexityTask):
        return task.questions(data)
    limits = [number for number in (task.max_documents, limit) if number is not None]
    return documents.read(data / task.documents, min(limits, default=None))


def limited(task: Task, samples: list[Any], limit: int | None) -> list[Any]:
    """Return at most `limit` of a task's samples, chosen by a hash of their ids.

    Documents were limited when they were read.
    """
    return samples if isinstance(task, PerplexityTask) else question.sample(samples, limit)


def check_length(name: str, task: Task, length: int | None) -> None:
    """Check that a model which reads `length` tokens can read the task's documents.

    Raises:
        DataError: they are longer.
    """
    if isinstance(task, PerplexityTask) and length is not None and task.max_tokens > length:
        raise DataError(
            f"task {name}: max_tokens is {task.max_tokens}, but the model reads at most {length}"
            " tokens"
        )


def runs(task: Task, protocol: Protocol) -> list[int]:
    """Return the runs of a task: one, or one for each set of few-shot examples."""
    if isinstance(task, PerplexityTask):
        return [0]
    # runs with the same few-shot examples would be the same
    return list(protocol.fewshot_seeds[:1] if task.fewshot_examples else protocol.fewshot_seeds)


def score(
    name: str,
    task: Task,
    samples: Sequence[Any],
    examples: FewShotExamples,
    protocol: Protocol,
    run: int,
    backend: Backend,
    log: SampleLog,
    max_batch_tokens: int,
    part: Part,
) -> None:
    """Score this process' part of the samples that `log` lacks, appending each batch at once."""
    wanted = {sample.id for sample in samples}
    strangers = [id_ for id_ in log.samples if id_ not in wanted]
    if strangers:
        raise DataError(
            f"{log.path} holds samples that the task has not, for example {strangers[0]!r}; choose"
            " another --output"
        )
    done = {place for place, sample in enumerate(samples) if sample.id in log.samples}
    if isinstance(task, PerplexityTask):
        work = _perplexity_job(name, task, samples, backend)
    else:
        work = multiple_choice.job(name, list(samples), examples, protocol, run, backend)
        _record_prompts(log.path, samples, work, part)
    replies = work.ask(work.requests, max_batch_tokens, done, part)
    with Progress(
        log.path.stem, total=(len(samples) - len(done)) / part[1], unit="samples"
    ) as progress:
        for batch in replies:
            progress.update(log.append([work.build(*reply) for reply in batch]))


def _record_prompts(path: Path, samples: Sequence[Any], work: Job, part: Part) -> None:
    """Write each sample's prompt beside the samples, once: OUTPUT/prompts/TASK.jsonl."""
    target = path.parent.parent / "prompts" / path.name
    if part[0] == 0 and not target.exists():
        lines = [
            jsonl.dump({"id": sample.id, "prompt": prompt})
            for sample, prompt in zip(samples, work.prompts, strict=True)
        ]
        write_text(target, "\n".join(lines) + "\n")


def _perplexity_job(
    name: str, task: PerplexityTask, samples: Sequence[documents.Document], backend: Backend
) -> Job:
    check_length(name, task, backend.context_length)
    encoded = [
        encoding.encode_document(backend.tokenizer, sample.text, task.max_tokens)
        for sample in samples
    ]
    requests = [request for request, _ in encoded]

    def build(place: int, values: list[float]) -> Sample:
        return perplexity_sample(samples[place], requests[place], encoded[place][1], values)

    return Job(backend.log_likelihoods, requests, build, [])


def perplexity_sample(
    sample: documents.Document, request: encoding.Request, size: int, values: list[float]
) -> Sample:
    """Return `{"id", "nll" (nats), "tokens", "bytes"}`, and the document's source if it has one."""
    [value] = multiple_choice.finite(values, f"document {sample.id}")
    found = {"id": sample.id, "nll": -value, "tokens": len(request.continuations[0]), "bytes": size}
    return found | ({"subject": sample.source} if sample.source else {})
