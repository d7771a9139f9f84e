"""Scores of judged answers as plain text."""

from collections.abc import Sequence
from typing import Any

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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    notes = [
        f"note: {entry['model']}: {entry['unjudged']:,} of"
        f" {entry['samples'] + entry['unjudged']:,} conversations have no score"
        for entry in entries
        if entry["unjudged"]
    ]
    return "\n".join([f"{entries[0]['task']}, {judge}", *lines, *notes])


def _cells(entry: dict[str, Any], samples: int) -> list[str]:
    score = entry["score"]
    interval = f"{100 * score['low']:.1f} to {100 * score['high']:.1f} %"
    return [f"{samples:,}", f"{100 * score['value']:.1f} %", interval]


def _difference(entry: dict[str, Any]) -> str:
    found = entry.get("difference")
    if found is None:
        return ""
    value = signed(found["value"], "accuracy")
    low = signed(found["low"], "accuracy")
    high = signed(found["high"], "accuracy")
    p = p_value(found["corrected_p"])
    return f"{value} points ({low} to {high}), corrected p {p}"
