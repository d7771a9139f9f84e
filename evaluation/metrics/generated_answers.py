"""Metrics of generated answers: their length, cut-off thinking, and several answers each."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import intervals, pass_at_k
from evaluation.metrics.intervals import Estimate

Sample = Mapping[str, Any]
COUNTED = ("tokens_per_answer", "thinking_tokens_per_answer")
"""Metrics that are not fractions."""


def estimates(by_run: Sequence[Sequence[Sample]]) -> dict[str, Estimate]:
    """Return the metrics of generated answers with 95 % intervals; over runs their means.

    Where the samples have them:

    - `reached_limit`: answers that the maximum number of tokens ended, if any.
    - `truncated_thinking`: answers whose thinking was cut off.
    - `forced`: answers that budget forcing asked for.
    - `tokens_per_answer`, `thinking_tokens_per_answer`.
    - `pass@k` with several answers to each question.

    Args:
        by_run: samples of each run, in the same order in each.
    """
    result = length_estimates(by_run)
    if all(len(sample["outputs"]) > 1 for run in by_run for sample in run):
        correct = [[_correct_answers(sample) for sample in run] for run in by_run]
        result |= pass_at_k.estimates(correct)
    return result


def length_estimates(by_run: Sequence[Sequence[Sample]]) -> dict[str, Estimate]:
    """Return the metrics of length and end of generated answers, without `pass@k`."""
    samples = list(itertools.chain.from_iterable(by_run))
    result: dict[str, Estimate] = {}
    shown = {
        "reached_limit": _is_any(samples, "reached_limit"),
        "truncated_thinking": _is_any(samples, "truncated_thinking")
        or _all_have(samples, "num_thinking_tokens"),
        "forced": True,
    }
    for name, is_shown in shown.items():
        if is_shown and _all_have(samples, name):
            result[name] = _proportion(by_run, name)
    counts = {
        "tokens_per_answer": "num_tokens",
        "thinking_tokens_per_answer": "num_thinking_tokens",
    }
    for name, key in counts.items():
        if _all_have(samples, key):
            result[name] = intervals.mean(_means(by_run, key))
    return result


def _all_have(samples: Sequence[Sample], key: str) -> bool:
    return all(key in sample for sample in samples)


def _is_any(samples: Sequence[Sample], key: str) -> bool:
    """Return whether a key is true for an answer of any sample."""
    return any(any(sample.get(key, ())) for sample in samples)


def _proportion(by_run: Sequence[Sequence[Sample]], key: str) -> Estimate:
    """Return the proportion of answers for which a key is true; Wilson's with one answer each."""
    values = _means(by_run, key)
    is_single = len(by_run) == 1 and all(len(sample[key]) == 1 for sample in by_run[0])
    return intervals.accuracy(values) if is_single else intervals.fraction(values)


def _means(by_run: Sequence[Sequence[Sample]], key: str) -> intervals.Floats:
    """Return the mean of each question's values of a key, over its answers and the runs."""
    means = [[float(np.mean(sample[key])) for sample in run] for run in by_run]
    averages: intervals.Floats = np.mean(means, axis=0)
    return averages


def _correct_answers(sample: Sample) -> list[bool]:
    if "correct_answers" in sample:
        return list(sample["correct_answers"])
    return [answer == sample["answer"] for answer in sample["extracted_answers"]]
