"""Two judges compared: their verdicts on the same criteria, and the scores that follow."""

import itertools
import math
from pathlib import Path
from typing import Any

from evaluation.judging import agreement_file, score_files
from evaluation.metrics import rater_agreement
from evaluation.question_sets import jsonl
from galen.errors import DataError

_SAMPLES = ".samples.jsonl"


def table(first: Path, second: Path) -> str:
    """Return the agreement of two judges as text, a line for each set of answers of both.

    Raises:
        DataError: they have judged nothing in common.
    """
    lines = []
    for title, before, after in _pairs(first, second):
        agreed = sum(a == b for a, b in zip(before, after, strict=True)) / len(before)
        kappa = rater_agreement.cohen_kappa(before, after)
        shown = "undefined" if math.isnan(kappa) else f"{kappa:.3f}"
        lines.append(
            f"{title}: {len(before):,} criteria, the same verdict on {100 * agreed:.1f} %, Cohen's"
            f" kappa {shown}; met {100 * sum(before) / len(before):.1f} % and"
            f" {100 * sum(after) / len(after):.1f} %"
        )
    if not lines:
        raise DataError(f"{first} and {second} have judged nothing in common")
    return "\n".join([f"{first} and {second}", *lines, *_scores(first, second)])


def _pairs(first: Path, second: Path) -> list[tuple[str, list[bool], list[bool]]]:
    """Return the verdicts of both judges on each set of answers that both have judged."""
    pairs = []
    labels = _labels(first)
    other_labels = _labels(second)
    common = [id_ for id_ in labels if id_ in other_labels]
    if common:
        before = [labels[id_] for id_ in common]
        after = [other_labels[id_] for id_ in common]
        pairs.append(("labeled answers", before, after))
    for path in sorted((first / score_files.FOLDER).glob(f"*{_SAMPLES}")):
        other = second / score_files.FOLDER / path.name
        if other.is_file():
            before, after = _common(path, other)
            if before:
                pairs.append((path.name.removesuffix(_SAMPLES), before, after))
    return pairs


def _labels(folder: Path) -> dict[str, bool]:
    """Return a judge's verdicts on the labeled answers, without those that it did not judge."""
    path = folder / agreement_file.LABELS
    if not path.is_file():
        return {}
    verdicts = {record["id"]: record["is_met"] for _, record in jsonl.records(path)}
    return {id_: bool(is_met) for id_, is_met in verdicts.items() if is_met is not None}


def _common(first: Path, second: Path) -> tuple[list[bool], list[bool]]:
    """Return the verdicts of two files on criteria that both have a verdict on."""
    others = {record["id"]: record["is_met"] for _, record in jsonl.records(second)}
    before: list[bool] = []
    after: list[bool] = []
    for where, record in jsonl.records(first):
        for row, other in zip(record["is_met"], others.get(record["id"], []), strict=False):
            if len(row) != len(other):
                raise DataError(f"{where}: the two judges had other rubrics")
            for a, b in zip(row, other, strict=True):
                if a is not None and b is not None:
                    before.append(a)
                    after.append(b)
    return before, after


def _scores(first: Path, second: Path) -> list[str]:
    """Return how far apart the scores of the two judges are, and whether they rank alike."""
    values: list[tuple[str, float, float]] = []
    tasks: list[str] = []
    for path in sorted((first / score_files.FOLDER).glob("*.json")):
        other = second / score_files.FOLDER / path.name
        if other.is_file():
            entry = score_files.read(path)
            tasks.append(entry["task"])
            after = _score(score_files.read(other))
            values.append((path.name.removesuffix(".json"), _score(entry), after))
    lines = [
        f"{name}: score {100 * a:.1f} and {100 * b:.1f} %, {100 * (b - a):+.1f} points"
        for name, a, b in values
    ]
    for task in dict.fromkeys(tasks):
        of_task = [value for value, name in zip(values, tasks, strict=True) if name == task]
        pairs = list(itertools.combinations(of_task, 2))
        if pairs:
            same = sum((x[1] - y[1]) * (x[2] - y[2]) > 0 for x, y in pairs)
            lines.append(f"{task}: the same order of {same} of {len(pairs)} pairs of models")
    return lines


def _score(entry: dict[str, Any]) -> float:
    return float(entry["score"]["value"])
