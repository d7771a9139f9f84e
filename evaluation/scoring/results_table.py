"""Results as plain text, one line per metric."""

from typing import Any


def table(results: dict[str, Any]) -> str:
    """Return the results as plain text, one line per metric."""
    rows = [["task", "samples", "metric", "value", "95 % interval"]]
    notes = []
    for name, entry in results["tasks"].items():
        for metric, estimate in entry["metrics"].items():
            interval = _interval(estimate)
            if metric == "accuracy":
                interval += _accuracy_remarks(entry)
            rows.append([name, str(entry["samples"]), metric, f"{estimate['value']:.4g}", interval])
        if clean := entry.get("clean"):
            interval = (
                f"{_interval(clean)}  ({entry['contaminated']} contaminated samples excluded)"
            )
            rows.append([name, str(clean["samples"]), "clean", f"{clean['value']:.4g}", interval])
        if subset := entry.get("contaminated_subset"):
            value = f"{subset['value']:.4g}"
            rows.append([name, str(subset["samples"]), "contaminated", value, _interval(subset)])
        rows += [[name, *cells] for cells in _order_bias(entry.get("order_bias"))]
        if "one_sided" in entry:
            notes.append(f"note: {name}: {entry['one_sided']}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    if "endpoint" in results:
        notes.append(_usage(results["endpoint"]))
    return "\n".join([results["model"]["name"], *lines, *notes])


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


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['low']:.4g} to {estimate['high']:.4g}"


def _accuracy_remarks(entry: dict[str, Any]) -> str:
    """Return chance level and standard deviation over runs, where a task has them."""
    remarks = ""
    if entry.get("chance") is not None:
        remarks += f"  (chance {entry['chance']:.4g})"
    if "sd" in entry:
        remarks += f"  (sd over {len(entry['runs'])} runs {entry['sd']:.4g})"
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
        cells = [str(entry["questions"]), title, f"{entry[key]['value']:.4g}"]
        rows.append([*cells, _interval(entry[key])])
    rows[0][-1] += f"  (mean of {entry['orders']} orders of the options)"
    return rows
