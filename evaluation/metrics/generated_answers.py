"""Metrics of generated answers: their length, cut-off thinking, and several answers each."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.metrics import intervals, pass_at_k
from evaluation.metrics.intervals import Estimate

Sample = dict[str, Any]
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
    samples = list(itertools.chain.from_iterable(by_run))
    result: dict[str, Estimate] = {}
    thinks = any(any(sample["truncated_thinking"]) for sample in samples)
    if thinks or all("num_thinking_tokens" in sample for sample in samples):
        result["truncated_thinking"] = _proportion(by_run, "truncated_thinking")
    if any(any(sample["reached_limit"]) for sample in samples):
        result["reached_limit"] = _proportion(by_run, "reached_limit")
    if all("forced" in sample for sample in samples):
        result["forced"] = _proportion(by_run, "forced")
    counts = {
        "tokens_per_answer": "num_tokens",
        "thinking_tokens_per_answer": "num_thinking_tokens",
    }
    for name, key in counts.items():
        if all(key in sample for sample in samples):
            result[name] = intervals.mean(_means(by_run, key))
    if all(len(sample["outputs"]) > 1 for sample in samples):
        correct = [[_correct_answers(sample) for sample in run] for run in by_run]
        result |= pass_at_k.estimates(correct)
    return result


def _proportion(by_run: Sequence[Sequence[Sample]], key: str) -> Estimate:
    """Return the proportion of answers for which a key is true; Wilson's with one answer each."""
    values = _means(by_run, key)
    is_single = len(by_run) == 1 and all(len(sample[key]) == 1 for sample in by_run[0])
    return intervals.accuracy(values) if is_single else intervals.mean(values)


def _means(by_run: Sequence[Sequence[Sample]], key: str) -> intervals.Floats:
    """Return the mean of each question's values of a key, over its answers and the runs."""
    means = [[float(np.mean(sample[key])) for sample in run] for run in by_run]
    averages: intervals.Floats = np.mean(means, axis=0)
    return averages


def _correct_answers(sample: Sample) -> list[bool]:
    return [answer == sample["answer"] for answer in sample["extracted_answers"]]
