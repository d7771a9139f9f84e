"""Scores of answers against rubrics, as HealthBench defines them (arXiv 2505.08775, section 4).

The score of an answer is the points of the criteria that it meets, divided by all positive points;
it may be negative. The score of a model is the mean over the conversations, clipped to 0 to 1; so
are the scores by theme, and by axis, for which only the criteria with its tag count.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics import intervals
from evaluation.metrics.intervals import Estimate


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer with the judge's verdict on each criterion."""

    points: tuple[float, ...]
    """Of each criterion."""
    is_met: tuple[bool, ...]
    criterion_tags: tuple[tuple[str, ...], ...]
    characters: int
    """Length of the answer."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Correction for length: `per_500` is subtracted for 500 characters above `center`."""

    center: float
    per_500: float

    def of(self, characters: int) -> float:
        """Return what is added to the score of an answer."""
        return -self.per_500 * (characters - self.center) / 500


def score(
    answer: JudgedAnswer, tag: str | None = None, adjustment: Adjustment | None = None
) -> float | None:
    """Return the score of an answer, None where no criterion has positive points.

    Args:
        answer: the answer.
        tag: count only criteria with this tag; None for all.
        adjustment: for the answer's length.
    """
    possible = 0.0
    achieved = 0.0
    for points, is_met, tags in zip(
        answer.points, answer.is_met, answer.criterion_tags, strict=True
    ):
        if tag is not None and tag not in tags:
            continue
        possible += max(points, 0.0)
        achieved += points if is_met else 0.0
    if not possible:
        return None
    correction = adjustment.of(answer.characters) if adjustment else 0.0
    return achieved / possible + correction


def clipped_mean(scores: Sequence[float]) -> Estimate:
    """Return the mean clipped to 0 to 1, with a bootstrap interval over conversations.

    Where the clipped bootstrap has no width at 0 or 1, the interval is Wilson's; that of a single
    conversation is 0 to 1.
    """
    if len(scores) == 1:
        return Estimate(float(np.clip(scores[0], 0.0, 1.0)), 0.0, 1.0)
    mean = intervals.fraction(scores)
    low, value, high = np.clip([mean.low, mean.value, mean.high], 0.0, 1.0)
    if low == high and low in (0.0, 1.0):  # all resampled means are beyond this end
        return intervals.accuracy(np.full(len(scores), low))
    return Estimate(float(value), float(low), float(high))


def by_tag(
    answers: Mapping[str, Sequence[JudgedAnswer]],
    conversation_tags: Mapping[str, Sequence[str]],
    adjustment: Adjustment | None = None,
) -> dict[str, tuple[int, Estimate]]:
    """Return number of conversations and score by tag: of conversations, then of criteria.

    Args:
        answers: of each conversation, by its id.
        conversation_tags: by the same ids.
        adjustment: for the answers' length; scores by criterion tag have none.
    """
    values: dict[str, list[float]] = defaultdict(list)
    criterion_values: dict[str, list[float]] = defaultdict(list)
    for id_, judged in answers.items():
        for tag in conversation_tags[id_]:
            values[tag].append(mean_score(judged, adjustment=adjustment))
        tags = dict.fromkeys(
            tag for answer in judged for tags in answer.criterion_tags for tag in tags
        )
        for tag in tags:
            scores = [score(answer, tag) for answer in judged]
            defined = [value for value in scores if value is not None]
            if defined:
                criterion_values[tag].append(float(np.mean(defined)))
    grouped = {**dict(sorted(values.items())), **dict(sorted(criterion_values.items()))}
    return {tag: (len(scores), clipped_mean(scores)) for tag, scores in grouped.items()}


def mean_score(answers: Sequence[JudgedAnswer], adjustment: Adjustment | None = None) -> float:
    """Return the mean score of the answers to one conversation."""
    scores = [score(answer, adjustment=adjustment) for answer in answers]
    return float(np.mean([0.0 if value is None else value for value in scores]))


def worst_at_k(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of the worst of k answers, clipped to 0 to 1, for k = 1 to all.

    The expectation over all subsets of k of the n answers to a conversation: of the sorted scores
    the i-th smallest is the worst of C(n - i, k - 1) of the C(n, k) subsets.

    Args:
        scores: of each conversation, of its answers; the same number for each.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=1)
    number = ordered.shape[1]
    result = []
    for k in range(1, number + 1):
        weights = [math.comb(number - 1 - rank, k - 1) for rank in range(number)]
        mean = ordered @ np.array(weights, float) / math.comb(number, k)
        result.append(float(np.clip(mean.mean(), 0.0, 1.0)))
    return result
