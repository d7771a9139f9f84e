"""Results as plain text, one line per metric."""

from collections.abc import Mapping
from typing import Any

from evaluation.reporting import plain_table
from evaluation.reporting.verdicts import number
from evaluation.scoring.task_type import TRUNCATED_PROMPTS


def table(results: dict[str, Any], heading: str) -> str:
    """Return the results as plain text, one line per metric, below a heading."""
    rows = [["task", "samples", "metric", "value", "95 % interval"]]
    notes = []
    for name, entry in results["tasks"].items():
        for metric, estimate in entry["metrics"].items():
            value = number(estimate["value"], metric)
            interval = _interval(estimate, metric)
            if metric == "accuracy":
                interval += _accuracy_remarks(entry)
            rows.append([name, str(entry["samples"]), metric, value, interval])
        rows += [[name, *cells] for cells in _contamination(entry)]
        rows += [[name, *cells] for cells in _order_bias(entry.get("order_bias"))]
        if entry.get(TRUNCATED_PROMPTS):
            notes.append(
                f"note: {name}: {entry[TRUNCATED_PROMPTS]:,} of {entry['samples']:,} prompts were"
                " truncated on the left to the model's context"
            )
        if "one_sided" in entry:
            notes.append(f"note: {name}: {entry['one_sided']}")
    if "endpoint" in results:
        notes.append(_usage(results["endpoint"]))
    return "\n".join([heading, *plain_table.lines(rows), *notes])


def _contamination(entry: dict[str, Any]) -> list[list[str]]:
    """Return the rows of a task's clean and contaminated samples, without the task."""
    primary = entry.get("primary_metric") or next(iter(entry["metrics"]))
    rows = []
    for title, key in (("clean", "clean"), ("contaminated", "contaminated_subset")):
        if subset := entry.get(key):
            interval = _interval(subset, primary)
            rows.append([str(subset["samples"]), title, number(subset["value"], primary), interval])
    if entry.get("clean"):
        rows[0][-1] += f"  ({entry['contaminated']} contaminated samples excluded)"
    return rows


def _usage(endpoint: dict[str, Any]) -> str:
    """Return what the endpoint counted, in words."""
    text = (
        f"endpoint: {endpoint['requests']:,} requests, {endpoint['prompt_tokens']:,} prompt tokens,"
        f" {endpoint['completion_tokens']:,} generated tokens"
    )
    for key, title in (("retries", "retries"), ("truncated", "truncated"), ("empty", "empty")):
        if endpoint[key]:
            text += f", {endpoint[key]:,} {title}"
    if endpoint["without_usage"]:
        text += f"; {endpoint['without_usage']:,} replies do not count their tokens"
    return text if endpoint["cost"] is None else f"{text}; cost {endpoint['cost']:,.4f}"


def _interval(estimate: Mapping[str, float], metric: str) -> str:
    low = number(estimate["low"], metric)
    high = number(estimate["high"], metric)
    return f"{low.removesuffix(' %')} to {high}"


def _accuracy_remarks(entry: dict[str, Any]) -> str:
    """Return chance level and standard deviation over runs, where a task has them."""
    remarks = ""
    if entry.get("chance") is not None:
        remarks += f"  (chance {number(entry['chance'], 'accuracy')})"
    if "sd" in entry:
        deviation = number(entry["sd"], "accuracy")
        remarks += f"  (sd over {len(entry['runs'])} runs {deviation})"
    return remarks


_ORDER_METRICS = {
    "accuracy": "accuracy, all orders",
    "accuracy_original_order": "accuracy, original order",
    "all_orders_correct": "all orders correct",
    "changed_answers": "changed answers",
}
"""Key of `order_bias` to the metric's name in the table."""


def _order_bias(entry: dict[str, Any] | None) -> list[list[str]]:
    """Return the rows of a task's order bias, without the task."""
    if not entry or not entry["questions"]:
        return []
    rows = []
    for key, title in _ORDER_METRICS.items():
        cells = [str(entry["questions"]), title, number(entry[key]["value"], key)]
        rows.append([*cells, _interval(entry[key], key)])
    rows[0][-1] += f"  (mean of {entry['orders']} orders of the options)"
    return rows
