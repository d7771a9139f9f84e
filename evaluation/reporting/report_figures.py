"""Figures of the report as inline SVG with the page's colors: light, dark and print."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evaluation.reporting.comparison import Comparison, is_fraction
from evaluation.reporting.report_inputs import Run
from galen import svg

_MARKERS = "os^Dv"


def loss_curve(run: Run, name: str) -> Markup:
    """Return training loss by step as a line, validation loss as points joined by a line."""
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 2.9))
        axes = figure.subplots()
        steps = [line["step"] for line in run.train]
        losses = [line["loss"] for line in run.train]
        axes.plot(steps, losses, color=svg.FIRST, linewidth=1.4, label="training")
        if run.validation:
            points = [line["step"] for line in run.validation]
            axes.plot(
                points,
                [line["loss"] for line in run.validation],
                color=svg.SECOND,
                marker="o",
                markersize=5,
                label="validation",
            )
        axes.set(xlabel="step", ylabel="loss (nats per token)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.legend(loc="upper right")
        return svg.render(figure, name)


def years(counts: Counter[int]) -> Markup:
    """Return documents by year of publication as bars."""
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 2.4))
        axes = figure.subplots()
        axes.bar(list(counts), list(counts.values()), color=svg.FIRST, width=0.85)
        axes.set(xlabel="year", ylabel="documents")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlim(min(counts) - 1, max(counts) + 1)
        _thousands(axes)
        return svg.render(figure, "years")


def lengths(words: Sequence[int]) -> Markup:
    """Return a histogram of document lengths; the longest hundredth is gathered in the last bar."""
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 2.4))
        axes = figure.subplots()
        limit = max(float(np.quantile(words, 0.99)), 1.0)
        axes.hist(np.minimum(words, limit), bins=30, color=svg.FIRST, rwidth=0.9)
        axes.set(xlabel="words in a document (the longest 1 % in the last bar)", ylabel="documents")
        _thousands(axes)
        return svg.render(figure, "lengths")


def intervals(comparison: Comparison) -> Markup:
    """Return each model's value with its 95 % interval as a horizontal line, the first on top."""
    with svg.style({"axes.grid.axis": "x"}):
        rows = comparison.rows
        figure = Figure(figsize=(svg.WIDTH, 0.75 + 0.42 * len(rows)))
        axes = figure.subplots()
        percent = 100.0 if is_fraction(comparison.metric) else 1.0
        for index, row in enumerate(rows):
            estimate = row.metrics[comparison.metric]
            color = svg.SECOND if index == 0 else svg.FIRST
            axes.plot(
                [estimate.low * percent, estimate.high * percent],
                [index, index],
                color=color,
                linewidth=2.5,
                solid_capstyle="round",
            )
            axes.plot(estimate.value * percent, index, "o", color=color, markersize=8)
        if comparison.chance is not None:
            axes.axvline(
                comparison.chance * percent, color=svg.INK, linewidth=1, linestyle=(0, (3, 3))
            )
            axes.annotate(
                "guessing",
                (comparison.chance * percent, 1),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=9,
            )
        axes.set_yticks(range(len(rows)), [short(row.model) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        unit = ", %" if is_fraction(comparison.metric) else ""
        direction = " (lower is better)" if comparison.task_type.lower_is_better else ""
        axes.set_xlabel(f"{comparison.metric}{unit}{direction}")
        return svg.render(figure, f"intervals-{comparison.title}")


def reliability(task: str, bins_by_model: Mapping[str, Sequence[Mapping[str, float]]]) -> Markup:
    """Return accuracy against confidence in percent, a line a model; calibrated is the diagonal."""
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 3.2))
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=svg.INK, linewidth=1, linestyle=(0, (3, 3)))
        for index, (model, bins) in enumerate(bins_by_model.items()):
            xs = [100 * entry["confidence"] for entry in bins]
            ys = [100 * entry["accuracy"] for entry in bins]
            color = svg.SECOND if index == 0 else svg.FIRST
            marker = _MARKERS[index % len(_MARKERS)]
            # markers at 0 and 100 % are not clipped by the axes
            axes.plot(
                xs,
                ys,
                color=color,
                marker=marker,
                linewidth=1.2,
                label=short(model),
                clip_on=False,
            )
        axes.set(
            xlabel="probability of the chosen option, %",
            ylabel="right, %",
            xlim=(0, 100),
            ylim=(0, 100),
        )
        axes.legend(loc="upper left", fontsize=9)
        return svg.render(figure, f"reliability-{task}")


def groups(name: str, by_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Markup:
    """Return each model's accuracy in percent by subject or language, with 95 % intervals."""
    with svg.style({"axes.grid.axis": "x"}):
        labels = list(dict.fromkeys(group for entries in by_model.values() for group in entries))
        # of a group, in inches: markers of all models below each other
        height = max(0.34, 0.13 * len(by_model))
        legend = 0.1 * len(by_model)
        figure = Figure(figsize=(svg.WIDTH, 1.0 + legend + height * len(labels)))
        axes = figure.subplots()
        for index, (model, entries) in enumerate(by_model.items()):
            rows = [
                labels.index(group)
                + min(0.16, 0.8 / len(by_model)) * (index - (len(by_model) - 1) / 2)
                for group in entries
            ]
            values = [100 * entry["value"] for entry in entries.values()]
            errors = [
                [100 * max(abs(entry["value"] - entry[end]), 0) for entry in entries.values()]
                for end in ("low", "high")
            ]
            color = svg.SECOND if index == 0 else svg.FIRST
            marker = _MARKERS[index % len(_MARKERS)]
            axes.errorbar(
                values,
                rows,
                xerr=errors,
                fmt=marker,
                color=color,
                markersize=5,
                linewidth=1.4,
                label=short(model),
            )
        axes.set_yticks(range(len(labels)), [label.replace("_", " ") for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel("accuracy, %")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        return svg.render(figure, name)


def short(name: str) -> str:
    """Return a name shortened for a figure, keeping its beginning and end (steps and sizes)."""
    short = name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}"
    # matplotlib's legend leaves out names that begin so
    return f"\N{ZERO WIDTH SPACE}{short}" if short.startswith("_") else short


def _thousands(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
