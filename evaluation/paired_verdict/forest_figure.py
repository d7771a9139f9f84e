"""The differences of a study as a figure: a line for each task, and the means."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from evaluation.metrics.hierarchical import Overall
from evaluation.metrics.intervals import Estimate
from evaluation.paired_verdict.task_verdict import LOSS, TIE, WIN, TaskVerdict
from galen import svg

_MAX_NAME = 30
_COLORS = {WIN: svg.FIRST, LOSS: svg.SECOND, TIE: svg.INK}


def differences(tasks: Sequence[TaskVerdict], overall: Overall | None, name: str) -> Markup:
    """Return each task's difference with its 95 % interval, in percentage points."""
    shown = [item for item in tasks if item.is_in_points]
    rows: list[tuple[str, Estimate, str]] = []
    for item in shown:
        color = _COLORS[item.outcome]
        sign = -1 if item.lower_is_better else 1
        estimate = item.tuned.difference
        low, high = sorted((sign * estimate.low, sign * estimate.high))
        rows.append((item.task[:_MAX_NAME], Estimate(sign * estimate.value, low, high), color))
    if overall is not None:
        rows.append(("mean", overall.of_these_tasks, svg.INK))
    with svg.style({"axes.grid.axis": "x"}):
        figure = Figure(figsize=(svg.WIDTH, 0.8 + 0.34 * len(rows)))
        axes = figure.subplots()
        axes.axvline(0, color=svg.INK, linewidth=1)
        for index, (_, estimate, color) in enumerate(rows):
            ends = [100 * estimate.low, 100 * estimate.high]
            axes.plot(ends, [index, index], color=color, linewidth=2.5, solid_capstyle="round")
            marker = "D" if overall is not None and index == len(rows) - 1 else "o"
            axes.plot(100 * estimate.value, index, marker, color=color, markersize=7)
        axes.set_yticks(range(len(rows)), [title for title, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("difference in percentage points; right of 0 is better")
        return svg.render(figure, name)
