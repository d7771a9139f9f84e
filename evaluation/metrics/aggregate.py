"""From scored samples to a task's entry in `results.json`."""

import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import calibration, intervals
from evaluation.metrics.intervals import Estimate

Sample = dict[str, Any]

_MEASURES = {
    "accuracy_argmax": "correct_argmax",
    "acc_bytes": "correct_acc_bytes",
    "accuracy_strict_match": "correct_strict_match",
}
"""Metric to the key of a sample that it is the mean of.

A metric whose key the samples lack is left out.
"""

ONE_SIDED = 0.9
"""From this share on a single answer is nearly always given."""
ONE_SIDED_SAMPLES = 20


def perplexity_entry(samples: Sequence[Sample]) -> Sample:
    """Return the metrics of scored documents, with 95% intervals, also by subject."""
    nll, tokens, size = ([sample[key] for sample in samples] for key in ("nll", "tokens", "bytes"))
    estimates = {
        "perplexity": intervals.perplexity(nll, tokens),
        "bits_per_byte": intervals.bits_per_byte(nll, size),
    }
    entry: Sample = {
        "metrics": _plain(estimates),
        "tokens": sum(tokens),
        "bytes": sum(size),
        "interval": "95 %, bootstrap over documents",
    }
    groups = _groups(samples, "subject")
    if groups:
        entry["by_subject"] = {
            name: {
                "samples": len(places),
                **intervals.perplexity(
                    [nll[n] for n in places], [tokens[n] for n in places]
                ).as_dict(),
            }
            for name, places in groups.items()
        }
    return entry


def choice_entry(by_run: Sequence[Sequence[Sample]], runs: Sequence[int]) -> Sample:
    """Return the metrics of scored questions, with 95% intervals, also by subject and language.

    Args:
        by_run: samples of each run, in the same order in each.
        runs: names of the runs.
    """
    first = by_run[0]
    correct = _mean_over_runs(by_run, lambda sample: sample["correct"])
    single = len(by_run) == 1
    # every sample is right or wrong, or right in some of the runs
    share = intervals.accuracy if single else intervals.mean
    estimates = {"accuracy": share(correct)}
    for name, key in _MEASURES.items():
        if all(key in sample for sample in first):
            estimates[name] = share(_mean_over_runs(by_run, operator.itemgetter(key)))
    if any("credit" in sample for sample in first):
        estimates["partial_credit"] = intervals.mean(
            _mean_over_runs(
                by_run, lambda sample: sample["credit"] if "credit" in sample else sample["correct"]
            )
        )
    if any("top" in sample or "outputs" in sample for sample in first):
        estimates["unparsed"] = share(
            _mean_over_runs(by_run, lambda sample: sample["prediction"] is None)
        )
    entry: Sample = {"interval": "95 %, Wilson" if single else "95 %, bootstrap over questions"}
    for key in ("subject", "language"):
        groups = _groups(first, key)
        if groups:
            entry[f"by_{key}"] = {
                name: {"samples": len(places), **share(correct[places]).as_dict()}
                for name, places in groups.items()
            }
            estimates[f"macro_by_{key}"] = intervals.macro_mean(correct, list(groups.values()))
    if all("logprobs" in sample for sample in first):
        entry["calibration"] = calibration.calibration(
            [sample for samples in by_run for sample in samples]
        )
    if all("answer" in sample for sample in first):
        entry |= predictions([sample for samples in by_run for sample in samples])
    if not single:
        of_runs = [float(np.mean([sample["correct"] for sample in samples])) for samples in by_run]
        entry |= {
            "runs": dict(zip(map(str, runs), of_runs, strict=True)),
            "sd": float(np.std(of_runs, ddof=1)),
        }
    return {"metrics": _plain(estimates), **entry}


def predictions(samples: Sequence[Sample]) -> Sample:
    """Return the count of each answer, the most frequent first; warn where one dominates.

    The warning is a sentence under `one_sided`.

    A model that cannot tell letters apart answers one of them nearly always: its accuracy is how
    often that letter is right.
    """
    counts = Counter(sample["prediction"] or "unparsed" for sample in samples)
    found: Sample = {"predictions": dict(counts.most_common())}
    answer, times = counts.most_common(1)[0]
    right = sum(sample["answer"] == answer for sample in samples)
    if len(samples) >= ONE_SIDED_SAMPLES and times >= ONE_SIDED * len(samples) > right:
        shares = (
            f"{times / len(samples):.1%} of the answers are {answer}, which is right for"
            f" {right / len(samples):.1%} of the questions"
        )
        found["one_sided"] = shares
    return found


def accuracy(by_run: Sequence[Sequence[Sample]]) -> Estimate:
    """Return the accuracy, of several runs the mean."""
    correct = _mean_over_runs(by_run, operator.itemgetter("correct"))
    return intervals.accuracy(correct) if len(by_run) == 1 else intervals.mean(correct)


def without_contaminated(
    by_run: Sequence[Sequence[Sample]],
    contaminated: Collection[str],
    estimate: Callable[[Sequence[Sequence[Sample]]], Estimate],
) -> Sample:
    """Return the number of contaminated samples and the primary metric on the others."""
    clean = [
        [sample for sample in samples if sample["id"] not in contaminated] for samples in by_run
    ]
    entry: Sample = {"contaminated": len(by_run[0]) - len(clean[0])}
    if clean[0]:
        entry["clean"] = {"samples": len(clean[0]), **estimate(clean).as_dict()}
    return entry


def _mean_over_runs(
    by_run: Sequence[Sequence[Sample]], value: Callable[[Sample], float]
) -> intervals.Floats:
    return np.mean([[float(value(sample)) for sample in samples] for samples in by_run], axis=0)


def _groups(samples: Sequence[Sample], key: str) -> dict[str, list[int]]:
    """Return the places of the samples by subject or language, where there are several."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        places[sample.get(key, "en" if key == "language" else "other")].append(place)
    return dict(sorted(places.items())) if len(places) > 1 else {}


def _plain(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate.as_dict() for name, estimate in estimates.items()}
