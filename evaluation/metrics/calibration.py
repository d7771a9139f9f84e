"""Calibration: expected calibration error, Brier score, and bins of a reliability diagram."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 10


def probabilities(logprobs: Mapping[str, float]) -> dict[str, float]:
    """Return the options' probabilities, made to sum to one."""
    values = np.array(list(logprobs.values()))
    shares = np.exp(values - values.max())
    return dict(zip(logprobs, (shares / shares.sum()).tolist(), strict=True))


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
    shares = [probabilities(sample["logprobs"]) for sample in single]
    likeliest = [max(share, key=lambda letter: share[letter]) for share in shares]
    confidence = np.array([share[letter] for share, letter in zip(shares, likeliest, strict=True)])
    right = np.array(
        [letter == sample["answer"] for letter, sample in zip(likeliest, single, strict=True)],
        dtype=float,
    )
    brier = [
        sum((p - (letter == sample["answer"])) ** 2 for letter, p in share.items())
        for share, sample in zip(shares, single, strict=True)
    ]
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        inside = place == number
        if inside.any():
            mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
            count = int(inside.sum())
            found.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "samples": count,
                    "confidence": mean,
                    "accuracy": accuracy,
                }
            )
    ece = sum(
        entry["samples"] * abs(entry["accuracy"] - entry["confidence"]) for entry in found
    ) / len(single)
    return {"ece": float(ece), "brier": float(np.mean(brier)), "bins": found}
