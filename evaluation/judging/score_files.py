"""Scores of judged answers: from verdicts to JUDGE/scores/MODEL.TASK.json, and what reads it."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from evaluation.judging.answers import AnsweredRun
from evaluation.judging.judge import Reply
from evaluation.metrics import intervals, rubric_scores, significance
from evaluation.metrics.intervals import Estimate
from evaluation.metrics.rubric_scores import Adjustment, JudgedAnswer
from evaluation.question_sets import jsonl
from evaluation.question_sets.rubric_reader import RubricConversation
from evaluation.scoring.model_names import file_stem
from evaluation.scoring.results_schema import Checked, Interval, check
from evaluation.tasks.rubric import RubricTask
from galen.atomic import write_text
from galen.errors import DataError

FOLDER = "scores"


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedRun:
    """A run's answers with the verdicts on them."""

    run: AnsweredRun
    answers: dict[str, list[JudgedAnswer]]
    """Of each conversation all of whose answers have all verdicts."""
    verdicts: dict[str, list[list[bool | None]]]
    """Of each conversation, answer and criterion."""

    @property
    def unjudged(self) -> int:
        """Number of conversations without a score: the judge gave no verdict on a criterion."""
        return len(self.verdicts) - len(self.answers)


class _Group(Interval):
    """A score of some conversations."""

    samples: Annotated[int, Field(ge=1)]


class Score(Checked):
    """A file of scores."""

    model: str
    protocol: str
    task: str
    judge: str
    samples: Annotated[int, Field(ge=0)]
    unjudged: Annotated[int, Field(ge=0)]
    score: Interval
    by_tag: dict[str, _Group]
    worst_at_k: list[float]
    difference: dict[str, Any] | None = None


def judged(
    run: AnsweredRun, conversations: Sequence[RubricConversation], replies: Sequence[Reply]
) -> JudgedRun:
    """Return a run's answers with the verdicts on them.

    Args:
        run: the answers.
        conversations: of the task.
        replies: of the judge, in the order of `answers.questions`.
    """
    remaining = iter(replies)
    answers: dict[str, list[JudgedAnswer]] = {}
    by_conversation: dict[str, list[list[bool | None]]] = {}
    for item in conversations:
        if item.id not in run.answers:
            continue
        texts = run.answers[item.id]
        met = [_next_verdicts(remaining, len(item.rubric)) for _ in texts]
        by_conversation[item.id] = met
        if all(verdict is not None for row in met for verdict in row):
            answers[item.id] = [
                _judged_answer(item, text, row) for text, row in zip(texts, met, strict=True)
            ]
    return JudgedRun(run=run, answers=answers, verdicts=by_conversation)


def _judged_answer(
    item: RubricConversation, text: str, verdicts: Sequence[bool | None]
) -> JudgedAnswer:
    return JudgedAnswer(
        points=tuple(criterion.points for criterion in item.rubric),
        is_met=tuple(bool(verdict) for verdict in verdicts),
        criterion_tags=tuple(criterion.tags for criterion in item.rubric),
        characters=len(text),
    )


def _next_verdicts(verdicts: Iterator[Reply], number: int) -> list[bool | None]:
    return [verdict.value for verdict in itertools.islice(verdicts, number)]


def adjustment(task: RubricTask) -> Adjustment | None:
    """Return a task's correction of scores for length."""
    if task.length_adjustment is None:
        return None
    return Adjustment(task.length_adjustment.center, task.length_adjustment.per_500_characters)


def entry(
    run: JudgedRun,
    task: str,
    specification: RubricTask,
    conversations: Sequence[RubricConversation],
    judge: str,
) -> dict[str, Any]:
    """Return a run's scores, of JSON types.

    Raises:
        DataError: no conversation has a score.
    """
    if not run.answers:
        raise DataError(
            f"{run.run.folder}: the judge gave no verdicts that can be read; see"
            " replies.jsonl, and try another judge, or --judge-prompt"
        )
    correction = adjustment(specification)
    scores = {id_: _adjusted(answers, correction) for id_, answers in run.answers.items()}
    means = [sum(values) / len(values) for values in scores.values()]
    tags = {item.id: item.tags for item in conversations}
    groups = rubric_scores.by_tag(run.answers, tags, correction)
    return {
        "model": run.run.name,
        "protocol": run.run.protocol,
        "task": task,
        "judge": judge,
        "samples": len(run.answers),
        "unjudged": run.unjudged,
        "score": rubric_scores.clipped_mean(means).as_dict(),
        "by_tag": {
            tag: {"samples": number, **estimate.as_dict()}
            for tag, (number, estimate) in groups.items()
        },
        "worst_at_k": rubric_scores.worst_at_k(list(scores.values())),
    }


def sample_scores(run: JudgedRun, correction: Adjustment | None) -> dict[str, float]:
    """Return the mean score of each conversation's answers."""
    return {
        id_: rubric_scores.mean_score(answers, correction) for id_, answers in run.answers.items()
    }


def _adjusted(answers: Sequence[JudgedAnswer], correction: Adjustment | None) -> list[float]:
    """Return the scores of a conversation's answers."""
    scores = []
    for answer in answers:
        value = rubric_scores.score(answer, adjustment=correction)
        assert value is not None  # the reader refuses rubrics without positive points
        scores.append(value)
    return scores


def difference(
    first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[Estimate, float] | None:
    """Return the second run's mean score minus the first's, and the p-value of the paired test.

    Of the conversations that both have; None where they have none in common.
    """
    common = [id_ for id_ in first if id_ in second]
    if not common:
        return None
    before = [first[id_] for id_ in common]
    after = [second[id_] for id_ in common]
    return (
        intervals.accuracy_difference(before, after),
        significance.paired_p_value(before, after),
    )


def path(folder: Path, model: str, task: str) -> Path:
    """Return the file of a model's scores in a judge's folder."""
    return folder / FOLDER / f"{file_stem(model)}.{task}.json"


def write(
    folder: Path, scores: Mapping[str, Any], run: JudgedRun, means: Mapping[str, float]
) -> Path:
    """Write a run's scores, and beside them those of each conversation with the verdicts.

    Raises:
        DataError: the file has the scores of a model with another name.
    """
    target = path(folder, scores["model"], scores["task"])
    if target.is_file() and (other := read(target)["model"]) != scores["model"]:
        raise DataError(
            f"{target} has the scores of {other}: give {scores['model']} another name, with --name"
            " of galen evaluate, or move the file away"
        )
    lines = [
        jsonl.dump({"id": id_, "score": means.get(id_), "is_met": verdicts})
        for id_, verdicts in run.verdicts.items()
    ]
    write_text(target.with_suffix(".samples.jsonl"), "\n".join(lines) + "\n")
    write_text(target, json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
    return target


def read(target: Path) -> dict[str, Any]:
    """Read a file of scores.

    Raises:
        DataError: it is none.
    """
    value = jsonl.tree(target)
    check(Score, value, target, " is not a file of scores of `galen judge`")
    return dict(value)


def as_dict(estimate: Estimate, p: float) -> dict[str, float]:
    """Return a difference with its p-value, of JSON types."""
    return {**dataclasses.asdict(estimate), "p": p}
