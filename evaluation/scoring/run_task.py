"""One run of a task: sends requests to a backend and writes its replies to the sample log."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.backends.base import Backend, Batching
from evaluation.chat_models.conversation import Conversation
from evaluation.protocols.few_shot import FewShotExamples
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import jsonl
from evaluation.question_sets.option_order import Permutation
from evaluation.scoring import option_orders, task_types
from evaluation.scoring.sample_log import SampleLog
from evaluation.scoring.task_type import TRUNCATED_PROMPT, Job, Sample
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
    conversation: Conversation,
    log: SampleLog,
    batching: Batching,
    permutations: Sequence[Permutation] = (),
) -> None:
    """Score this process' samples that are not in `log` yet, appending each batch at once.

    With `permutations` the samples are questions with permuted options, one for each.
    """
    expected = {sample.id for sample in samples}
    unknown = [id_ for id_ in log.samples if id_ not in expected]
    if unknown:
        raise DataError(
            f"{log.path} holds samples that the task has not, for example {unknown[0]!r}; choose"
            " another --output"
        )
    done = {index for index, sample in enumerate(samples) if sample.id in log.samples}
    job = task_types.of(task).job(
        name, task, samples, examples, protocol, run, backend, conversation
    )
    if permutations:
        job = option_orders.restore(job, permutations)
    if job.prompts:
        _record_prompts(log.path, samples, job, batching.rank)
    replies = job.ask(job.requests, replace(batching, done=done))
    total = (len(samples) - len(done)) / batching.world_size
    with Progress(log.path.stem, total=total, unit="samples") as progress:
        for batch in replies:
            progress.update(log.append([_sample(job, *reply) for reply in batch]))


def _sample(job: Job, index: int, *reply: Any) -> Sample:
    """Return the scored sample of a request; it is marked if the prompt was truncated."""
    sample = job.build(index, *reply)
    return sample | {TRUNCATED_PROMPT: True} if index in job.truncated else sample


def _record_prompts(path: Path, samples: Sequence[Any], job: Job, rank: int) -> None:
    """Write the prompts to OUTPUT/prompts/TASK.jsonl, once, in the first process."""
    target = path.parent.parent / "prompts" / path.name
    if rank == 0 and not target.exists():
        lines = [
            jsonl.dump({"id": sample.id, "prompt": prompt})
            for sample, prompt in zip(samples, job.prompts, strict=True)
        ]
        write_text(target, "\n".join(lines) + "\n")
