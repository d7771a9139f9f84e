"""Verdicts on answers that a judge has scored, as tasks of a study.

Their prompts are those of the answers; there is no choice among them. Scores of two judges are two
tasks, each named with its judge.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.judging import agreement_file, score_files
from evaluation.metrics import intervals, rubric_scores, significance
from evaluation.paired_verdict.task_verdict import Paired, TaskVerdict
from evaluation.question_sets import jsonl
from galen.errors import DataError


def judge_tasks(folders: Sequence[Path], base: str, model: str) -> list[TaskVerdict]:
    """Return the verdicts on the tasks that judges have scored for both models.

    Args:
        folders: of the judges.
        base: the base's name.
        model: the other model's.

    Raises:
        DataError: a judge has scored no task for both, or a file is damaged.
    """
    verdicts = []
    for folder in folders:
        entries = [score_files.read(path) for path in sorted(folder.glob("scores/*.json"))]
        by_model = {name: _by_task(entries, name) for name in (base, model)}
        shared = [task for task in by_model[base] if task in by_model[model]]
        if not shared:
            raise DataError(f"{folder} has scores of no task for both {base} and {model}")
        agreement = agreement_file.read(folder)
        for task in shared:
            entry = by_model[base][task]
            sentence = agreement_file.sentence(entry["judge"], agreement)
            verdicts.append(_verdict(folder, task, (base, model), entry["judge"], sentence))
    return verdicts


def _by_task(entries: Sequence[dict[str, Any]], model: str) -> dict[str, dict[str, Any]]:
    return {entry["task"]: entry for entry in entries if entry["model"] == model}


def _verdict(
    folder: Path, task: str, names: tuple[str, str], judge: str, sentence: str
) -> TaskVerdict:
    first, second = (_scores(score_files.path(folder, name, task)) for name in names)
    common = [id_ for id_ in first if id_ in second]
    if not common:
        raise DataError(
            f"{folder}: {names[0]} and {names[1]} share no judged conversation of {task}"
        )
    before = [first[id_] for id_ in common]
    after = [second[id_] for id_ in common]
    paired = Paired(
        base=rubric_scores.clipped_mean(before),
        model=rubric_scores.clipped_mean(after),
        difference=intervals.accuracy_difference(before, after),
        p=significance.paired_p_value(before, after),
        values=tuple(b - a for a, b in zip(before, after, strict=True)),
    )
    prompt = "that of the answers"
    return TaskVerdict(
        task=f"{task} ({judge})",
        is_general=False,
        metric="score",
        unit="conversations",
        lower_is_better=False,
        samples=len(common),
        validation_samples=0,
        num_prompts=1,
        base_prompt=prompt,
        model_prompt=prompt,
        tuned=paired,
        fixed=paired,
        quality={"base": {}, "model": {}},
        notes=(sentence,),
        folders=(str(folder), str(folder)),
    )


def _scores(path: Path) -> dict[str, float]:
    """Return the score of each conversation that has one."""
    samples = path.with_suffix(".samples.jsonl")
    scores = {}
    for where, record in jsonl.records(samples):
        value = record.get("score")
        if value is None:
            continue
        if not isinstance(value, int | float):
            raise DataError(f"{where}: key 'score' must be a number, not {jsonl.shown(value)}")
        scores[jsonl.text(record, "id", where)] = float(value)
    return scores
