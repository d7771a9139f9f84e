"""Scores of judged answers as plain text."""

from collections.abc import Sequence
from typing import Any

from evaluation.reporting import plain_table
from evaluation.reporting.verdicts import p_value, signed

_OMITTED = ("level", "cluster", "physician_agreed_category")
"""Tags of HealthBench whose scores are in the file alone."""


def table(entries: Sequence[dict[str, Any]], judge: str) -> str:
    """Return the scores of several models by one judge, the parts of each below it.

    Args:
        entries: contents of files of scores, of one task and judge.
        judge: the judge and its agreement, in words.
    """
    rows = [["model", "part", "samples", "score", "95 % interval", "difference"]]
    for entry in entries:
        rows.append([entry["model"], "all", *_cells(entry, entry["samples"]), _difference(entry)])
        for tag, part in entry["by_tag"].items():
            if tag.partition(":")[0] in _OMITTED:
                continue
            rows.append([entry["model"], tag, *_cells({"score": part}, part["samples"]), ""])
        for k, value in enumerate(entry["worst_at_k"], start=1):
            if len(entry["worst_at_k"]) > 1:
                rows.append([entry["model"], f"worst of {k}", "", f"{100 * value:.1f} %", "", ""])
    notes = [
        f"note: {entry['model']}: {entry['unjudged']:,} of"
        f" {entry['samples'] + entry['unjudged']:,} conversations have no score"
        for entry in entries
        if entry["unjudged"]
    ]
    heading = f"{entries[0]['task']}, {judge}"
    return "\n".join([heading, *plain_table.lines(rows), *notes])


def _cells(entry: dict[str, Any], samples: int) -> list[str]:
    score = entry["score"]
    interval = f"{100 * score['low']:.1f} to {100 * score['high']:.1f} %"
    return [f"{samples:,}", f"{100 * score['value']:.1f} %", interval]


def _difference(entry: dict[str, Any]) -> str:
    difference = entry.get("difference")
    if difference is None:
        return ""
    value = signed(difference["value"], "accuracy")
    low = signed(difference["low"], "accuracy")
    high = signed(difference["high"], "accuracy")
    p = p_value(difference["corrected_p"])
    return f"{value} points ({low} to {high}), corrected p {p}"
