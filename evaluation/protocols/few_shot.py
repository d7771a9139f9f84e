"""Few-shot examples: worked questions before each question of a run.

They are the same for all questions, or for all of a subject.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from evaluation.protocols import task_settings
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import question, rows
from evaluation.question_sets.question import Question
from evaluation.question_sets.reader import FixedFewShot
from evaluation.tasks.task import MultipleChoiceTask
from galen.errors import DataError, UsageError

FewShotExamples = dict[str, list[Question]]
"""Few-shot examples by the subject of the questions they precede; under "" those for all others."""


def choose(
    name: str,
    task: MultipleChoiceTask,
    data: Path,
    protocol: Protocol,
    runs: Sequence[int],
    questions: list[Question],
) -> dict[int, FewShotExamples]:
    """Return the few-shot examples of each run.

    - A task with `fewshot_examples` shows the first ones of that file, in order: of the task's own
      question set (PubMedQA's answers are words) where the file has some with this `question_set`,
      else those without.
    - A layout whose files bring their own examples (BioMistral's) has these.
    - A task or layout whose examples are by subject (MMLU in lm-evaluation-harness' templates) has
      the first ones of each subject, as there.
    - All others are the `num_fewshot` questions of the task's `fewshot_source` or `fewshot_split`
      whose hash with the run's seed is smallest: the same whatever the order of the file. With
      `fewshot_sampler: first_n` they are the first ones.

    Questions that are scored are excluded.

    Raises:
        UsageError: the task names no file to take them from.
        DataError: the file holds too few (with a rationale, where the protocol shows one).
    """
    protocol = task_settings.settings(task, protocol)
    if not protocol.num_fewshot:
        return {run: {"": []} for run in runs}
    if not task.fewshot_examples and task.fewshot_file is None:
        return _of_task_file(name, task, data, protocol, runs)
    scored = {(item.context, item.question) for item in questions}
    pool = _pool(task, data, protocol)
    pool = [item for item in pool if (item.context, item.question) not in scored]
    by_subject: FewShotExamples = {"": pool}
    if not task.fewshot_examples and task_settings.by_subject(task, protocol):
        by_subject = {
            subject: [item for item in pool if subject in ("", item.subject)]
            for subject in sorted({item.subject for item in questions})
        }
    for subject, usable in by_subject.items():
        _check_number(name, task, protocol, subject, len(usable))
    number = protocol.num_fewshot
    if task.fewshot_examples or task_settings.takes_first(task, protocol):
        first = {subject: usable[:number] for subject, usable in by_subject.items()}
        return dict.fromkeys(runs, first)
    return {run: _drawn_by_subject(by_subject, run, number) for run in runs}


def _check_number(
    name: str, task: MultipleChoiceTask, protocol: Protocol, subject: str, usable: int
) -> None:
    """Check that there are enough examples for a subject.

    Raises:
        DataError: there are too few.
    """
    if usable >= protocol.num_fewshot:
        return
    label = f"{name}, {subject}" if subject else name
    rationale = " with a rationale" if protocol.chain_of_thought else ""
    raise DataError(
        f"task {label}: {protocol.num_fewshot} few-shot examples{rationale} are needed,"
        f" {task.fewshot_examples or task.fewshot_file} holds {usable} that are not scored"
    )


def _pool(task: MultipleChoiceTask, data: Path, protocol: Protocol) -> list[Question]:
    """Return all questions that could be shown."""
    if task.fewshot_examples:
        candidates = question.read(data / task.fewshot_examples)
    else:
        candidates = task.fewshot_candidates(data)
    if protocol.chain_of_thought:
        candidates = [item for item in candidates if item.rationale]
    if task.fewshot_examples:
        own = [item for item in candidates if item.question_set == task.question_set]
        return own or [item for item in candidates if not item.question_set]
    subjects = task.subjects or ()
    return [item for item in candidates if item.subject in subjects] or candidates


def _drawn_by_subject(pools: FewShotExamples, seed: int, number: int) -> FewShotExamples:
    return {subject: drawn(pool, seed, number) for subject, pool in pools.items()}


def drawn(pool: Sequence[Question], seed: int, number: int) -> list[Question]:
    """Return the questions with the smallest hashes."""

    def draw(item: Question) -> bytes:
        return hashlib.sha256(f"{seed}\n{item.id}\n{item.question}".encode()).digest()

    return sorted(pool, key=draw)[:number]


def _of_task_file(
    name: str, task: MultipleChoiceTask, data: Path, protocol: Protocol, runs: Sequence[int]
) -> dict[int, FewShotExamples]:
    """Return the examples that the scored file itself brings, as BioMistral's do.

    Raises:
        UsageError: it brings none.
    """
    fixed = task.layout().fixed_few_shot
    if fixed is None:
        raise UsageError(
            f"task {name}: the protocol shows {protocol.num_fewshot} few-shot examples, but the"
            " task has no key 'fewshot_source' that names a file of them (the training set); add"
            " it, or give --fewshot-examples FILE, or --num-fewshot 0"
        )
    source = task.source(data, task.file)
    return {run: _fixed(name, fixed, source, run, protocol.num_fewshot) for run in runs}


def _fixed(
    name: str, fixed: FixedFewShot, source: str | Path, run: int, number: int
) -> FewShotExamples:
    """Return for each subject the first `number` examples of a set that the files bring."""
    if number > fixed.size or run not in fixed.sets:
        raise UsageError(
            f"task {name}: {fixed.description}: --num-fewshot is at most {fixed.size},"
            f" --fewshot-seeds of {', '.join(map(str, fixed.sets))}"
        )
    examples: FewShotExamples = {}
    for row in rows.read(source):
        subject = row.text(fixed.subject_key)
        if subject not in examples:
            examples[subject] = fixed.read(row, run)[:number]
    return examples
