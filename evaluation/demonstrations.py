"""Demonstrations: worked questions that stand before each question of a run, the same for all of them."""

import hashlib
from pathlib import Path

from evaluation import question_sets
from evaluation.protocol import Protocol
from evaluation.question import Question
from evaluation.question_sets import multilingual, rows
from evaluation.task import MultipleChoiceTask
from galen.errors import DataError, UsageError

Shots = dict[str, list[Question]]


def choose(name: str, task: MultipleChoiceTask, data: Path, protocol: Protocol, run: int, questions: list[Question]) -> Shots:
    """Return the demonstrations of one run, by the subject of the questions that they are for; under "" those for all others.

    Those of BioMistral's own files are its frozen triples, one for each of its ten benchmarks; others are the `shots` questions
    of the task's `demonstrations` file whose hash with the run's seed is smallest: the same whatever the order of the file.
    Questions that are scored are left out.

    Raises:
        UsageError: the task names no file to take them from.
        DataError: the file holds too few (with a rationale, where the protocol shows one).
    """
    if not protocol.shots:
        return {"": []}
    if task.demonstrations is None:
        if task.reader == "biomistral":
            return _frozen(task.source(data, task.file), run, protocol.shots)
        raise UsageError(
            f"task {name}: the protocol shows {protocol.shots} demonstrations, but the task has no key 'demonstrations' "
            "that names a file of them (the training set); add it, or give --shots 0"
        )
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


def _frozen(source: str | Path, run: int, shots: int) -> Shots:
    found: Shots = {"": []}
    for row in rows.read(source):
        corpus = str(row.record.get("corpus_name"))
        if corpus not in found:
            found[corpus] = multilingual.biomistral_demonstrations(row, run)[:shots]
    return found
