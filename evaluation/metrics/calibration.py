"""Calibration: expected calibration error, Brier score, and bins of a reliability diagram."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


def probabilities(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Return the options' probabilities, normalized to sum to one."""
    values = np.array(list(logprobs.values()))
    unnormalized = np.exp(values - values.max())
    normalized = unnormalized / unnormalized.sum()
    return dict(zip(logprobs, normalized.tolist(), strict=True))


def calibration(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the calibration of samples with `logprobs` and a single right `answer`.

    Other samples are left out.

    Expected calibration error: over `BINS` equal-width bins of the likeliest option's probability,
    the mean of |accuracy - mean confidence| weighted by samples (Naeini et al. 2015, AAAI). Brier
    score: mean over samples of the sum over options of (probability - 1 if right)² (Brier 1950,
    Mon. Weather Rev. 78:1), from 0 to 2.

    Returns:
        `ece`, `brier`, and `bins` with `low`, `high`, `samples`, `confidence`, `accuracy`; empty
        bins are omitted.
    """
    single = [sample for sample in samples if sample["answer"] in sample["logprobs"]]
    if not single:
        return {"ece": None, "brier": None, "bins": []}
    confidences: list[float] = []
    is_right: list[bool] = []
    brier: list[float] = []
    for sample in single:
        by_letter = probabilities(sample["logprobs"])
        likeliest = max(by_letter, key=lambda letter: by_letter[letter])
        confidences.append(by_letter[likeliest])
        is_right.append(likeliest == sample["answer"])
        brier.append(_brier_score(by_letter, sample["answer"]))
    bins = _bins(np.array(confidences), np.array(is_right, dtype=float))
    errors = sum(entry["samples"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins)
    return {"ece": float(errors / len(single)), "brier": float(np.mean(brier)), "bins": bins}


def _brier_score(by_letter: Mapping[str, float], answer: str) -> float:
    return sum((p - (letter == answer)) ** 2 for letter, p in by_letter.items())


def _bins(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return the bins of a reliability diagram that are not empty.

    Args:
        confidence: probability of the likeliest option of each sample.
        right: 1 where it is right, else 0.
    """
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = bin_of == number
        if inside.any():
            entry = {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "samples": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
            bins.append(entry)
    return bins
