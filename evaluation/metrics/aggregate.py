"""From scored samples to a task's entry in `results.json`."""

import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import calibration, generated_answers, intervals
from evaluation.metrics.intervals import Estimate

Sample = dict[str, Any]

_MEASURES = {
    "accuracy_argmax": "correct_argmax",
    "acc": "correct_acc",
    "acc_norm": "correct_acc_norm",
    "acc_bytes": "correct_acc_bytes",
    "accuracy_strict_match": "correct_strict_match",
}
"""Metric to the key of a sample that it is the mean of; omitted if the samples lack the key."""

ONE_SIDED = 0.9
"""Fraction of samples with the same answer from which on a warning is given."""
ONE_SIDED_SAMPLES = 20


def perplexity_entry(samples: Sequence[Sample]) -> Sample:
    """Return the metrics of scored documents, with 95% intervals, also by subject."""
    nll = [sample["nll"] for sample in samples]
    tokens = [sample["tokens"] for sample in samples]
    sizes = [sample["bytes"] for sample in samples]
    estimates = {
        "perplexity": intervals.perplexity(nll, tokens),
        "bits_per_byte": intervals.bits_per_byte(nll, sizes),
    }
    entry: Sample = {
        "metrics": _plain(estimates),
        "tokens": sum(tokens),
        "bytes": sum(sizes),
        "interval": "95 %, bootstrap over documents",
    }
    groups = _groups(samples, "subject")
    if groups:
        entry["by_subject"] = {}
        for name, indices in groups.items():
            estimate = intervals.perplexity(
                [nll[index] for index in indices], [tokens[index] for index in indices]
            )
            entry["by_subject"][name] = {"samples": len(indices), **estimate.as_dict()}
    return entry


def choice_entry(by_run: Sequence[Sequence[Sample]], runs: Sequence[int]) -> Sample:
    """Return the metrics of scored questions, with 95% intervals, also by subject and language.

    Args:
        by_run: samples of each run, in the same order in each.
        runs: names of the runs.
    """
    first = by_run[0]
    single = len(by_run) == 1
    estimates = _choice_estimates(by_run)
    entry: Sample = {"interval": "95 %, Wilson" if single else "95 %, bootstrap over questions"}
    correct = _mean_over_runs(by_run, operator.itemgetter("correct"))
    for key in ("subject", "language"):
        groups = _groups(first, key)
        if groups:
            entry[f"by_{key}"] = _by_group(correct, groups, single)
            estimates[f"macro_by_{key}"] = intervals.macro_mean(correct, list(groups.values()))
    samples_of_all_runs = list(itertools.chain.from_iterable(by_run))
    empty_options = sum("empty_option" in sample for sample in first)
    if empty_options:  # never the likeliest per character or byte
        entry["samples_with_empty_option"] = empty_options
    if all("logprobs" in sample for sample in first):
        entry["calibration"] = calibration.calibration(samples_of_all_runs)
    if all("answer" in sample for sample in first):
        entry |= predictions(samples_of_all_runs)
    if not single:
        accuracies = [_accuracy_of_run(samples) for samples in by_run]
        entry["runs"] = dict(zip(map(str, runs), accuracies, strict=True))
        entry["sd"] = float(np.std(accuracies, ddof=1))
    return {"metrics": _plain(estimates), **entry}


def _choice_estimates(by_run: Sequence[Sequence[Sample]]) -> dict[str, Estimate]:
    """Return the metrics of scored questions over all samples."""
    first = by_run[0]
    estimates = {"accuracy": accuracy(by_run)}
    for name, key in _MEASURES.items():
        if all(key in sample for sample in first):
            estimates[name] = _proportion(by_run, operator.itemgetter(key))
    if any("credit" in sample for sample in first):
        estimates["partial_credit"] = intervals.fraction(_mean_over_runs(by_run, _credit))
    if any("top" in sample or "outputs" in sample for sample in first):
        estimates["unparsed"] = _proportion(by_run, _is_unparsed)
    if all("outputs" in sample for sample in first):
        estimates |= generated_answers.estimates(by_run)
    return estimates


def reference_entry(by_run: Sequence[Sequence[Sample]], runs: Sequence[int], metric: str) -> Sample:
    """Return the metrics of answers scored against references, also by subject and language.

    Args:
        by_run: samples of each run, in the same order in each.
        runs: names of the runs.
        metric: name of the mean score.
    """
    first = by_run[0]
    is_proportion = _is_proportion(by_run)
    estimates = {metric: mean_score(by_run)}
    if all("exact_match" in sample for sample in first):
        exact = _mean_over_runs(by_run, operator.itemgetter("exact_match"))
        estimates["exact_match"] = _estimator(_has_one_answer(by_run))(exact)
    estimates["unparsed"] = intervals.fraction(_mean_over_runs(by_run, _unparsed_fraction))
    estimates |= generated_answers.estimates(by_run)
    method = "Wilson" if is_proportion else "bootstrap over questions"
    entry: Sample = {"interval": f"95 %, {method}"}
    scores = _mean_over_runs(by_run, operator.itemgetter("correct"))
    for key in ("subject", "language"):
        groups = _groups(first, key)
        if groups:
            entry[f"by_{key}"] = _by_group(scores, groups, is_proportion)
            estimates[f"macro_by_{key}"] = intervals.macro_mean(scores, list(groups.values()))
    if len(by_run) > 1:
        means = [_accuracy_of_run(samples) for samples in by_run]
        entry["runs"] = dict(zip(map(str, runs), means, strict=True))
        entry["sd"] = float(np.std(means, ddof=1))
    return {"metrics": _plain(estimates), **entry}


def mean_score(by_run: Sequence[Sequence[Sample]]) -> Estimate:
    """Return the mean score; by Wilson where each question has one right or wrong answer."""
    return _estimator(_is_proportion(by_run))(
        _mean_over_runs(by_run, operator.itemgetter("correct"))
    )


def _is_proportion(by_run: Sequence[Sequence[Sample]]) -> bool:
    return _has_one_answer(by_run) and all(sample["metric"] != "f1" for sample in by_run[0])


def _has_one_answer(by_run: Sequence[Sequence[Sample]]) -> bool:
    return len(by_run) == 1 and all(len(sample["outputs"]) == 1 for sample in by_run[0])


def _unparsed_fraction(sample: Sample) -> float:
    """Return the fraction of answers that are unparsed although no thinking was cut off."""
    pairs = zip(sample["extracted_answers"], sample["truncated_thinking"], strict=True)
    return float(np.mean([answer is None and not cut_off for answer, cut_off in pairs]))


def _is_unparsed(sample: Sample) -> bool:
    """Return whether there is an answer, and none of the options in it.

    Where all thinking was cut off there is no answer; that is a metric of its own.
    """
    cut_off = sample.get("truncated_thinking")
    return sample["prediction"] is None and not (cut_off and all(cut_off))


def _credit(sample: Sample) -> float:
    """Return the partial credit of an answer; 0 or 1 for a question with one right option."""
    credit: float = sample["credit"] if "credit" in sample else sample["correct"]
    return credit


def _by_group(
    correct: intervals.Floats, groups: dict[str, list[int]], single: bool
) -> dict[str, Sample]:
    """Return the accuracy of each group of samples.

    Args:
        correct: of each sample, the mean over the runs.
        groups: indices of the samples of each group.
        single: whether there is one run.
    """
    estimate = _estimator(single)
    return {
        name: {"samples": len(indices), **estimate(correct[indices]).as_dict()}
        for name, indices in groups.items()
    }


def _estimator(single: bool) -> Callable[[intervals.Floats], Estimate]:
    """Return the estimator of a proportion.

    In a single run each sample counts as 0 or 1; over several runs it is a mean.
    """
    return intervals.accuracy if single else intervals.fraction


def _proportion(by_run: Sequence[Sequence[Sample]], value: Callable[[Sample], float]) -> Estimate:
    """Return the proportion of samples for which a value is true, of several runs the mean."""
    return _estimator(len(by_run) == 1)(_mean_over_runs(by_run, value))


def _accuracy_of_run(samples: Sequence[Sample]) -> float:
    return float(np.mean([sample["correct"] for sample in samples]))


def predictions(samples: Sequence[Sample]) -> Sample:
    """Return the count of each answer, the most frequent first, and a warning if one dominates.

    The warning is a sentence under `one_sided`. A model that cannot tell letters apart answers one
    of them nearly always: its accuracy is how often that letter is right.
    """
    counts = Counter(sample["prediction"] or "unparsed" for sample in samples)
    entry: Sample = {"predictions": dict(counts.most_common())}
    answer, times = counts.most_common(1)[0]
    right = sum(sample["answer"] == answer for sample in samples)
    if len(samples) >= ONE_SIDED_SAMPLES and times >= ONE_SIDED * len(samples) > right:
        entry["one_sided"] = (
            f"{times / len(samples):.1%} of the answers are {answer}, which is right for"
            f" {right / len(samples):.1%} of the questions"
        )
    return entry


def accuracy(by_run: Sequence[Sequence[Sample]]) -> Estimate:
    """Return the accuracy, of several runs the mean."""
    return _proportion(by_run, operator.itemgetter("correct"))


def by_contamination(
    by_run: Sequence[Sequence[Sample]],
    contaminated: Collection[str],
    estimate: Callable[[Sequence[Sequence[Sample]]], Estimate],
) -> Sample:
    """Return the primary metric on the clean and on the contaminated samples.

    Each is omitted if it has no samples.

    Args:
        by_run: samples of each run.
        contaminated: ids of samples that the training corpus contains, and perhaps of others.
        estimate: returns the primary metric of the samples of each run.
    """
    ids = sorted(sample["id"] for sample in by_run[0] if sample["id"] in contaminated)
    entry: Sample = {"contaminated": len(ids), "contaminated_ids": ids}
    subsets = {
        "clean": [_selected(samples, contaminated, False) for samples in by_run],
        "contaminated_subset": [_selected(samples, contaminated, True) for samples in by_run],
    }
    for name, subset in subsets.items():
        if subset[0]:
            entry[name] = {"samples": len(subset[0]), **estimate(subset).as_dict()}
    return entry


def _selected(samples: Sequence[Sample], ids: Collection[str], contained: bool) -> list[Sample]:
    return [sample for sample in samples if (sample["id"] in ids) == contained]


def _mean_over_runs(
    by_run: Sequence[Sequence[Sample]], value: Callable[[Sample], float]
) -> intervals.Floats:
    """Return the mean over the runs of each sample's value."""
    values = [np.array([float(value(sample)) for sample in samples]) for samples in by_run]
    return np.mean(values, axis=0)


def _groups(samples: Sequence[Sample], key: str) -> dict[str, list[int]]:
    """Return the indices of the samples of each subject or language; empty if there is only one."""
    default = "en" if key == "language" else "other"
    groups: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        groups[sample.get(key, default)].append(index)
    return dict(sorted(groups.items())) if len(groups) > 1 else {}


def _plain(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate.as_dict() for name, estimate in estimates.items()}
