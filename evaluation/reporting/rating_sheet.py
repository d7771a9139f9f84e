"""Pairs of answers on a sheet for human raters, and the agreement of the judge with them.

The order of the two answers is drawn by a hash of the conversation, and the models are not named.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.judging.pair_scores import Verdict, mean_outcomes
from evaluation.judging.pairs import FIRST, SECOND, TIE
from evaluation.metrics import intervals, rater_agreement, significance
from evaluation.reporting import sheet
from galen.errors import DataError

_RESAMPLES = 1000
_SCORES = {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}


def _rows(verdicts: Sequence[Verdict]) -> dict[str, tuple[Verdict, str, str]]:
    """Return by row id: a verdict, and the models of answer 1 and answer 2."""
    rows = {}
    for verdict in verdicts:
        pair = verdict.pair
        if pair.first > pair.second:
            continue
        digest = hashlib.sha256(f"{pair.id}\n{pair.first}\n{pair.second}".encode()).digest()
        models = (pair.first, pair.second) if digest[0] % 2 else (pair.second, pair.first)
        rows[hashlib.sha256(digest).hexdigest()[:12]] = (verdict, *models)
    return rows


def write(path: Path, verdicts: Sequence[Verdict], raters: int) -> None:
    """Write a sheet on which raters mark the better answer of each pair: 1, 2 or tie.

    Ratings in an existing sheet are kept.
    """
    rows = []
    for id_, (verdict, first, second) in _rows(verdicts).items():
        turns = [f"{turn['role']}: {turn['content']}" for turn in verdict.pair.messages]
        answers = [verdict.pair.answers[name] for name in (first, second)]
        rows.append([id_, "\n\n".join(turns), *answers])
    names = [f"rater{number}" for number in range(1, raters + 1)]
    sheet.write(path, ["id", "conversation", "answer 1", "answer 2"], rows, names)


def agreement(path: Path, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the agreement of the judge and of the raters, of JSON types.

    The judge's verdict on a pair is that of both orders. Cohen's kappa compares the three
    categories, Kendall's tau-b the mean ratings with the judge's mean outcome.

    Raises:
        DataError: the sheet has no ratings, or one is unknown.
    """
    ratings = read(path)
    rows = _rows(verdicts)
    judged = {}
    for id_, (verdict, first, second) in rows.items():
        of_conversation = [item for item in verdicts if item.pair.id == verdict.pair.id]
        judged[id_] = mean_outcomes(first, second, of_conversation)[verdict.pair.id]
    entry: dict[str, Any] = {"raters": {}}
    for name, of_rater in ratings.items():
        common = [id_ for id_ in of_rater if id_ in judged]
        if len(common) < 2:
            raise DataError(f"{path}: {name} has rated {len(common)} of the judged pairs")
        pairs = [(_category(judged[id_]), of_rater[id_]) for id_ in common]
        entry["raters"][name] = {"pairs": len(common), "kappa": _kappa(pairs)}
    means = {}
    for id_ in judged:
        scores = [_SCORES[of_rater[id_]] for of_rater in ratings.values() if id_ in of_rater]
        if scores:
            means[id_] = float(np.mean(scores))
    entry["tau"] = _tau([(judged[id_], means[id_]) for id_ in means])
    entry["between_raters"] = _between(ratings)
    return entry


def read(path: Path) -> dict[str, dict[str, str]]:
    """Return each rater's ratings by the row's id; empty cells are left out.

    Raises:
        DataError: the sheet has no ratings, or one is unknown.
    """
    filled = sheet.read(path)
    names = [name for name in filled.columns if name.startswith("rater")]
    ratings: dict[str, dict[str, str]] = {name: {} for name in names}
    for row, line in zip(filled.rows, filled.lines, strict=True):
        for name in names:
            cell = row[name].strip().lower()
            if not cell:
                continue
            if cell not in _SCORES:
                raise DataError(
                    f"{path}, line {line}: column {name!r} must be 1, 2 or tie, not {cell[:40]!r}"
                )
            ratings[name][row["id"]] = cell
    ratings = {name: of_rater for name, of_rater in ratings.items() if of_rater}
    if not ratings:
        raise DataError(f"{path} has no rating: a column 'rater…' with 1, 2 or tie is expected")
    return ratings


def _category(outcome: float) -> str:
    if outcome == 0.5:
        return TIE
    return FIRST if outcome > 0.5 else SECOND


def _kappa(pairs: Sequence[tuple[str, str]]) -> dict[str, float] | None:
    """Return Cohen's kappa with its interval; None where it is undefined."""

    def of(drawn: Sequence[tuple[str, str]]) -> float:
        return rater_agreement.cohen_kappa([a for a, _ in drawn], [b for _, b in drawn])

    value = of(pairs)
    if math.isnan(value):
        return None
    return intervals.statistic(pairs, value, of, _RESAMPLES).as_dict()


def _tau(pairs: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    def of(drawn: Sequence[tuple[float, float]]) -> float:
        return significance.kendall_tau([a for a, _ in drawn], [b for _, b in drawn])

    value = of(pairs)
    if math.isnan(value):
        return None
    return intervals.statistic(pairs, value, of, _RESAMPLES).as_dict()


def _between(ratings: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return Cohen's kappa of each two raters on the pairs that both have rated."""
    result = {}
    for first, second in itertools.combinations(ratings, 2):
        common = [id_ for id_ in ratings[first] if id_ in ratings[second]]
        if len(common) >= 2:
            pairs = [(ratings[first][id_], ratings[second][id_]) for id_ in common]
            result[f"{first}, {second}"] = {"pairs": len(common), "kappa": _kappa(pairs)}
    return result
