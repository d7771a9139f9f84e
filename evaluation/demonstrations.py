"""Demonstrations: worked questions that stand before each question of a run, the same for all of them."""

import hashlib
from pathlib import Path

from evaluation import question, question_sets
from evaluation.protocol import Protocol
from evaluation.question import Question
from evaluation.question_sets import multilingual, rows
from evaluation.task import MultipleChoiceTask, Task
from galen.errors import DataError, UsageError

Shots = dict[str, list[Question]]


def check(name: str, task: Task, protocol: Protocol) -> None:
    """Check, before any work, that a few-shot protocol has something to show.

    Raises:
        UsageError: the task names no file to take demonstrations from.
    """
    if not protocol.shots or not isinstance(task, MultipleChoiceTask) or task.frozen_demonstrations:
        return
    if task.demonstrations is None and task.reader != "biomistral":
        raise UsageError(
            f"task {name}: the protocol shows {protocol.shots} demonstrations, but the task has no key 'demonstrations' "
            "that names a file of them (the training set); add it, or give --demonstrations FILE, or --shots 0"
        )


def choose(name: str, task: MultipleChoiceTask, data: Path, protocol: Protocol, run: int, questions: list[Question]) -> Shots:
    """Return the demonstrations of one run, by the subject of the questions that they are for; under "" those for all others.

    Those of a task's `frozen_demonstrations` are its first ones, in order: of the task's own question set (PubMedQA's answers are
    words) where the file has some with this `question_set`, else those without. Those of BioMistral's own files are its frozen
    triples, one for each of its ten benchmarks; others are the `shots` questions of the task's `demonstrations` file whose hash
    with the run's seed is smallest: the same whatever the order of the file.
    Questions that are scored are left out.

    Raises:
        UsageError: the task names no file to take them from.
        DataError: the file holds too few (with a rationale, where the protocol shows one).
    """
    if not protocol.shots:
        return {"": []}
    check(name, task, protocol)
    if task.frozen_demonstrations:
        return {"": _first(name, task, data / task.frozen_demonstrations, protocol, questions)}
    if task.demonstrations is None:
        return _frozen(task.source(data, task.file), run, protocol.shots)
    pool = question_sets.read(task.reader, task.source(data, task.demonstrations))
    if task.subjects is not None and any(item.subject in task.subjects for item in pool):
        pool = [item for item in pool if item.subject in task.subjects]
    scored = {(item.context, item.question) for item in questions}
    pool = [item for item in pool if (item.context, item.question) not in scored and (item.rationale or not protocol.chain_of_thought)]
    if len(pool) < protocol.shots:
        kind = "demonstrations with a rationale" if protocol.chain_of_thought else "demonstrations"
        raise DataError(f"task {name}: {protocol.shots} {kind} are wanted, {task.demonstrations} holds {len(pool)} that are not scored")
    pool.sort(key=lambda item: hashlib.sha256(f"{run}\n{item.id}\n{item.question}".encode()).digest())
    return {"": pool[: protocol.shots]}


def _first(name: str, task: MultipleChoiceTask, path: Path, protocol: Protocol, questions: list[Question]) -> list[Question]:
    scored = {(item.context, item.question) for item in questions}
    usable = [item for item in question.read(path) if item.rationale or not protocol.chain_of_thought]
    own = [item for item in usable if item.question_set == task.reader] or [item for item in usable if not item.question_set]
    own = [item for item in own if (item.context, item.question) not in scored]
    if len(own) < protocol.shots:
        kind = "demonstrations with a rationale" if protocol.chain_of_thought else "demonstrations"
        raise DataError(f"task {name}: {protocol.shots} {kind} are wanted, {path} holds {len(own)} for it that are not scored")
    return own[: protocol.shots]


def _frozen(source: str | Path, run: int, shots: int) -> Shots:
    found: Shots = {"": []}
    for row in rows.read(source):
        corpus = str(row.record.get("corpus_name"))
        if corpus not in found:
            found[corpus] = multilingual.biomistral_demonstrations(row, run)[:shots]
    return found
