"""From scored items to a task's entry in `results.json`."""

import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from evaluation.metrics import calibration, intervals
from evaluation.metrics.intervals import Estimate
from evaluation.tasks.task import PerplexityTask, Task

Item = dict[str, Any]

_MEASURES = {
    "accuracy_argmax": "correct_argmax",
    "accuracy_per_byte": "correct_per_byte",
    "accuracy_legacy": "correct_legacy",
}
"""Metric to the key of an item that it is the mean of.

A metric whose key the items lack is left out.
"""

ONE_SIDED = 0.9
"""From this share on a single answer is nearly always given."""
ONE_SIDED_ITEMS = 20


def summarise(
    task: Task,
    by_run: Sequence[Sequence[Item]],
    runs: Sequence[int],
    chance: float | None,
    contaminated: Collection[str] | None,
) -> Item:
    """Return a task's entry of `results.json`: kind, number of items, metrics with 95 % intervals.

    Some kinds have further keys.

    Args:
        task: its specification.
        by_run: items of each run, in the same order in each.
        runs: names of the runs.
        chance: for multiple choice, the accuracy of guessing a single option.
        contaminated: ids of items that the training corpus holds, or None when this was not looked
            at.
    """
    entry = (
        _perplexity(by_run[0])
        if isinstance(task, PerplexityTask)
        else {**_choice(by_run, runs), "chance": chance}
    )
    if contaminated is not None:
        entry |= _clean(task, by_run, contaminated)
    return {"kind": task.kind, "items": len(by_run[0]), **entry}


def _perplexity(items: Sequence[Item]) -> Item:
    nll, tokens, size = ([item[key] for item in items] for key in ("nll", "tokens", "bytes"))
    estimates = {
        "perplexity": intervals.perplexity(nll, tokens),
        "bits_per_byte": intervals.bits_per_byte(nll, size),
    }
    entry: Item = {
        "metrics": _plain(estimates),
        "tokens": sum(tokens),
        "bytes": sum(size),
        "interval": "95 %, bootstrap over documents",
    }
    groups = _groups(items, "subject")
    if groups:
        entry["by_subject"] = {
            name: {
                "items": len(places),
                **intervals.perplexity(
                    [nll[n] for n in places], [tokens[n] for n in places]
                ).as_dict(),
            }
            for name, places in groups.items()
        }
    return entry


def _choice(by_run: Sequence[Sequence[Item]], runs: Sequence[int]) -> Item:
    first = by_run[0]
    correct = _mean_over_runs(by_run, lambda item: item["correct"])
    single = len(by_run) == 1
    # every item is right or wrong, or right in some of the runs
    share = intervals.accuracy if single else intervals.mean
    estimates = {"accuracy": share(correct)}
    for name, key in _MEASURES.items():
        if all(key in item for item in first):
            estimates[name] = share(_mean_over_runs(by_run, operator.itemgetter(key)))
    if any("credit" in item for item in first):
        estimates["partial_credit"] = intervals.mean(
            _mean_over_runs(
                by_run, lambda item: item["credit"] if "credit" in item else item["correct"]
            )
        )
    if any("top" in item or "outputs" in item for item in first):
        estimates["unreadable"] = share(
            _mean_over_runs(by_run, lambda item: item["prediction"] is None)
        )
    entry: Item = {"interval": "95 %, Wilson" if single else "95 %, bootstrap over questions"}
    for key in ("subject", "language"):
        groups = _groups(first, key)
        if groups:
            entry[f"by_{key}"] = {
                name: {"items": len(places), **share(correct[places]).as_dict()}
                for name, places in groups.items()
            }
            estimates[f"macro_by_{key}"] = intervals.macro_mean(correct, list(groups.values()))
    if all("logprobs" in item for item in first):
        entry["calibration"] = calibration.calibration([item for items in by_run for item in items])
    if all("answer" in item for item in first):
        entry |= predictions([item for items in by_run for item in items])
    if not single:
        of_runs = [float(np.mean([item["correct"] for item in items])) for items in by_run]
        entry |= {
            "runs": dict(zip(map(str, runs), of_runs, strict=True)),
            "sd": float(np.std(of_runs, ddof=1)),
        }
    return {"metrics": _plain(estimates), **entry}


def predictions(items: Sequence[Item]) -> Item:
    """Return the count of each answer, the most frequent first; warn where one dominates.

    The warning is a sentence under `one_sided`.

    A model that cannot tell letters apart answers one of them nearly always: its accuracy is how
    often that letter is right.
    """
    counts = Counter(item["prediction"] or "unreadable" for item in items)
    found: Item = {"predictions": dict(counts.most_common())}
    answer, times = counts.most_common(1)[0]
    right = sum(item["answer"] == answer for item in items)
    if len(items) >= ONE_SIDED_ITEMS and times >= ONE_SIDED * len(items) > right:
        shares = (
            f"{times / len(items):.1%} of the answers are {answer}, which is right for"
            f" {right / len(items):.1%} of the questions"
        )
        found["one_sided"] = shares
    return found


def _clean(task: Task, by_run: Sequence[Sequence[Item]], contaminated: Collection[str]) -> Item:
    """Return the number of contaminated items and the main metric on the others."""
    clean = [[item for item in items if item["id"] not in contaminated] for items in by_run]
    entry: Item = {"contaminated": len(by_run[0]) - len(clean[0])}
    if clean[0] and isinstance(task, PerplexityTask):
        estimate = intervals.perplexity(
            [item["nll"] for item in clean[0]], [item["tokens"] for item in clean[0]]
        )
        entry["clean"] = {"items": len(clean[0]), **estimate.as_dict()}
    elif clean[0]:
        correct = _mean_over_runs(clean, lambda item: item["correct"])
        estimate = intervals.accuracy(correct) if len(clean) == 1 else intervals.mean(correct)
        entry["clean"] = {"items": len(clean[0]), **estimate.as_dict()}
    return entry


def _mean_over_runs(
    by_run: Sequence[Sequence[Item]], value: Callable[[Item], float]
) -> intervals.Floats:
    return np.mean([[float(value(item)) for item in items] for items in by_run], axis=0)


def _groups(items: Sequence[Item], key: str) -> dict[str, list[int]]:
    """Return the places of the items by subject or language, where there are several."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.get(key, "en" if key == "language" else "other")].append(place)
    return dict(sorted(places.items())) if len(places) > 1 else {}


def _plain(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate.as_dict() for name, estimate in estimates.items()}
