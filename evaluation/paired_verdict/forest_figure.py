"""Figures of studies: a line for each task with its difference, the means of several models."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from evaluation.metrics.hierarchical import Overall
from evaluation.metrics.intervals import Estimate
from evaluation.paired_verdict.study import Study
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
        rows.append((item.task[:_MAX_NAME], item.gain, color))
    has_mean = overall is not None and overall.tasks > 1
    if overall is not None and has_mean:
        rows.append(("mean", overall.of_these_tasks, svg.INK))
    with svg.style({"axes.grid.axis": "x"}):
        figure = Figure(figsize=(svg.WIDTH, 0.8 + 0.34 * len(rows)))
        axes = figure.subplots()
        axes.axvline(0, color=svg.INK, linewidth=1)
        for index, (_, estimate, color) in enumerate(rows):
            ends = [100 * estimate.low, 100 * estimate.high]
            axes.plot(ends, [index, index], color=color, linewidth=2.5, solid_capstyle="round")
            marker = "D" if has_mean and index == len(rows) - 1 else "o"
            axes.plot(100 * estimate.value, index, marker, color=color, markersize=7)
        axes.set_yticks(range(len(rows)), [title for title, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        # below the figure, not the axes, which long names make narrow
        label = "difference in percentage points; right of 0 is better"
        figure.supxlabel(label, fontsize=svg.STYLE["font.size"])
        return svg.render(figure, name)


def trajectory(studies: Sequence[Study]) -> Markup:
    """Return the mean differences of models in their order: medical tasks and general ones."""
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 3.0))
        axes = figure.subplots()
        axes.axhline(0, color=svg.INK, linewidth=1)
        for title, color, marker, offset, of in (
            ("medical", svg.FIRST, "o", -0.06, [item.medical for item in studies]),
            ("general", svg.SECOND, "s", 0.06, [item.general for item in studies]),
        ):
            known = [(index, one.of_these_tasks) for index, one in enumerate(of) if one is not None]
            places = [index + offset for index, _ in known]
            values = [100 * estimate.value for _, estimate in known]
            axes.plot(places, values, color=color, marker=marker, markersize=6, label=title)
            for place, (_, estimate) in zip(places, known, strict=True):
                ends = [100 * estimate.low, 100 * estimate.high]
                axes.plot([place, place], ends, color=color, linewidth=1.5)
        names = [item.model[-_MAX_NAME:] for item in studies]
        axes.set_xticks(range(len(studies)), names, rotation=20 if len(studies) > 3 else 0)
        axes.set_ylabel("mean difference, points")
        axes.legend(loc="best")
        return svg.render(figure, "trajectory")
