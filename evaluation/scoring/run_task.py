"""One run of a task: requests to a backend, replies to the sample log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.backends.base import Backend, Part
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import jsonl
from evaluation.scoring import task_types
from evaluation.scoring.sample_log import SampleLog
from evaluation.scoring.task_type import Job
from evaluation.tasks.task import Task
from galen.atomic import write_text
from galen.errors import DataError
from galen.progress import Progress


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
    expected = {sample.id for sample in samples}
    unknown = [id_ for id_ in log.samples if id_ not in expected]
    if unknown:
        raise DataError(
            f"{log.path} holds samples that the task has not, for example {unknown[0]!r}; choose"
            " another --output"
        )
    done = {index for index, sample in enumerate(samples) if sample.id in log.samples}
    job = task_types.of(task).job(name, task, samples, examples, protocol, run, backend)
    if job.prompts:
        _record_prompts(log.path, samples, job, part)
    replies = job.ask(job.requests, max_batch_tokens, done, part)
    total = (len(samples) - len(done)) / part[1]
    with Progress(log.path.stem, total=total, unit="samples") as progress:
        for batch in replies:
            progress.update(log.append([job.build(*reply) for reply in batch]))


def _record_prompts(path: Path, samples: Sequence[Any], job: Job, part: Part) -> None:
    """Write each sample's prompt beside the samples, once: OUTPUT/prompts/TASK.jsonl."""
    target = path.parent.parent / "prompts" / path.name
    if part[0] == 0 and not target.exists():
        lines = [
            jsonl.dump({"id": sample.id, "prompt": prompt})
            for sample, prompt in zip(samples, job.prompts, strict=True)
        ]
        write_text(target, "\n".join(lines) + "\n")
