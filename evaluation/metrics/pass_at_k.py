"""Several answers to each question: pass@k, and the mean accuracy of an answer."""

import math
from collections.abc import Sequence

import numpy as np

from evaluation.metrics import intervals
from evaluation.metrics.intervals import Estimate


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k answers is correct.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, "Evaluating Large Language Models Trained on Code",
    arXiv 2107.03374, equation 1.

    Args:
        num_samples: answers to the question, n.
        num_correct: correct ones among them, c.
        k: at most n.
    """
    if not 1 <= k <= num_samples or not 0 <= num_correct <= num_samples:
        raise ValueError(f"pass@{k} of {num_correct} correct among {num_samples} is undefined")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def estimates(correct: Sequence[Sequence[Sequence[bool]]]) -> dict[str, Estimate]:
    """Return pass@1, pass@2, pass@4 … and pass@n, means over runs, with bootstrap intervals.

    Args:
        correct: whether each answer is correct, (runs, questions, answers).
    """
    number = len(correct[0][0])
    powers = [2**exponent for exponent in range(number.bit_length()) if 2**exponent < number]
    result = {}
    for k in [*powers, number]:
        by_run = [[pass_at_k(number, sum(answers), k) for answers in run] for run in correct]
        result[f"pass@{k}"] = intervals.fraction(np.mean(by_run, axis=0))
    return result
