"""Demonstrations: worked questions before each question of a run.

The same for all questions, or for all of a subject.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from evaluation import question_sets
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets import multilingual, question, rows
from evaluation.question_sets.question import Question
from evaluation.tasks.task import MultipleChoiceTask
from galen.errors import DataError, UsageError

Shots = dict[str, list[Question]]
"""Demonstrations by the subject of the questions that they are for; under "" those for all others.
"""


def choose(
    name: str,
    task: MultipleChoiceTask,
    data: Path,
    protocol: Protocol,
    runs: Sequence[int],
    questions: list[Question],
) -> dict[int, Shots]:
    """Return the demonstrations of each run.

    Those of a task's `frozen_demonstrations` are its first ones, in order: of the task's own
    question set (PubMedQA's answers are words) where the file has some with this `question_set`,
    else those without. Those of BioMistral's own files are its frozen triples, one for each of its
    ten benchmarks. MMLU in lm-evaluation-harness' forms has the first ones of each subject, as
    there. All others are the `shots` questions of the task's `demonstrations` file whose hash with
    the run's seed is smallest: the same whatever the order of the file. Questions that are scored
    are left out.

    Raises:
        UsageError: the task names no file to take them from.
        DataError: the file holds too few (with a rationale, where the protocol shows one).
    """
    if not protocol.shots:
        return {run: {"": []} for run in runs}
    if not task.frozen_demonstrations and task.demonstrations is None:
        if task.reader == "biomistral":
            return {
                run: _triples(name, task.source(data, task.file), run, protocol.shots)
                for run in runs
            }
        raise UsageError(
            f"task {name}: the protocol shows {protocol.shots} demonstrations, but the task has no"
            " key 'demonstrations' that names a file of them (the training set); add it, or give"
            " --demonstrations FILE, or --shots 0"
        )
    scored = {(item.context, item.question) for item in questions}
    pool = [
        item for item in _pool(task, data, protocol) if (item.context, item.question) not in scored
    ]
    subjects = {""}
    if (
        task.reader == "mmlu"
        and protocol.form.startswith("lm_eval")
        and not task.frozen_demonstrations
    ):
        subjects = {item.subject for item in questions}
    by_subject = {
        subject: [item for item in pool if subject in ("", item.subject)]
        for subject in sorted(subjects)
    }
    for subject, usable in by_subject.items():
        if len(usable) < protocol.shots:
            kind = (
                "demonstrations with a rationale" if protocol.chain_of_thought else "demonstrations"
            )
            source = (
                f"{task.frozen_demonstrations or task.demonstrations} holds {len(usable)} for it"
                " that are not scored"
            )
            raise DataError(
                f"task {name}{subject and ', '}{subject}: {protocol.shots} {kind} are wanted,"
                f" {source}"
            )
    if task.frozen_demonstrations or subjects != {""}:
        return {
            run: {subject: usable[: protocol.shots] for subject, usable in by_subject.items()}
            for run in runs
        }
    return {
        run: {"": sorted(pool, key=lambda item: _draw(run, item))[: protocol.shots]} for run in runs
    }


def _pool(task: MultipleChoiceTask, data: Path, protocol: Protocol) -> list[Question]:
    """Return all that could be shown."""
    if task.frozen_demonstrations:
        found = question.read(data / task.frozen_demonstrations)
    else:
        found = question_sets.read(task.reader, task.source(data, task.demonstrations or ""))
    found = [item for item in found if item.rationale or not protocol.chain_of_thought]
    if task.frozen_demonstrations:
        return [item for item in found if item.question_set == task.reader] or [
            item for item in found if not item.question_set
        ]
    return [item for item in found if item.subject in (task.subjects or ())] or found


def _draw(run: int, item: Question) -> bytes:
    return hashlib.sha256(f"{run}\n{item.id}\n{item.question}".encode()).digest()


def _triples(name: str, source: str | Path, run: int, shots: int) -> Shots:
    """Return for each benchmark the first `shots` of a frozen triple of BioMistral's files."""
    if shots > 3 or run not in (1, 2, 3):
        raise UsageError(
            f"task {name}: BioMistral's files have three sets of three demonstrations: --shots is"
            " at most 3, --seeds of 1, 2 and 3"
        )
    found: Shots = {}
    for row in rows.read(source):
        corpus = row.text("corpus_name")
        if corpus not in found:
            found[corpus] = multilingual.biomistral_demonstrations(row, run)[:shots]
    return found
