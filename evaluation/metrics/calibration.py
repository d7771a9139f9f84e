"""Calibration: expected calibration error, Brier score, and bins of a reliability diagram."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
BIOMISTRAL_BINS = 5


def probabilities(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Return the options' probabilities, normalized to sum to one."""
    values = np.array(list(logprobs.values()))
    unnormalized = np.exp(values - values.max())
    normalized = unnormalized / unnormalized.sum()
    return dict(zip(logprobs, normalized.tolist(), strict=True))


def calibration(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the calibration of samples with `logprobs` and a single right `answer`.

    Other samples are left out.

    Expected calibration error: over equal-width bins of the likeliest option's probability, the
    mean of |accuracy - mean confidence| weighted by samples (Naeini et al. 2015, AAAI). `ece` has
    `BINS` bins, and the options' probabilities sum to one. `ece_biomistral` has five bins of the
    model's own probabilities, as in BioMistral's code, so that what other tokens get lowers the
    confidence. Brier score: mean over samples of the sum over options of (probability - 1 if
    right)² (Brier 1950, Mon. Weather Rev. 78:1), from 0 to 2.

    Returns:
        `samples` (their number), `ece`, `ece_biomistral`, `brier`, and `bins` (of `ece`) with
        `low`, `high`, `samples`, `confidence`, `accuracy`; empty bins are omitted.
    """
    single = [sample for sample in samples if sample["answer"] in sample["logprobs"]]
    if not single:
        return {"samples": 0, "ece": None, "ece_biomistral": None, "brier": None, "bins": []}
    confidences: list[float] = []
    raw_confidences: list[float] = []
    is_right: list[bool] = []
    brier: list[float] = []
    for sample in single:
        by_letter = probabilities(sample["logprobs"])
        likeliest = max(by_letter, key=lambda letter: by_letter[letter])
        confidences.append(by_letter[likeliest])
        raw_confidences.append(math.exp(min(sample["logprobs"][likeliest], 0.0)))
        is_right.append(likeliest == sample["answer"])
        brier.append(_brier_score(by_letter, sample["answer"]))
    right = np.array(is_right, dtype=float)
    bins = _bins(np.array(confidences), right)
    errors = sum(entry["samples"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins)
    return {
        "samples": len(single),
        "ece": float(errors / len(single)),
        "ece_biomistral": _ece_biomistral(np.array(raw_confidences), right),
        "brier": float(np.mean(brier)),
        "bins": bins,
    }


def _ece_biomistral(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return BioMistral's expected calibration error; a bin includes its upper bound."""
    bounds = np.linspace(0, 1, BIOMISTRAL_BINS + 1)
    bin_of = np.searchsorted(bounds, confidence, side="left")
    error = 0.0
    for number in range(1, BIOMISTRAL_BINS + 1):
        inside = bin_of == number
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return float(error)


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
