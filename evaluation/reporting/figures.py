"""Figures of the report as inline SVG with the page's colours: light, dark and print."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evaluation.reporting.comparison import Comparison
from evaluation.reporting.inputs import Run
from galen import svg

# Colours that stand for variables of the page's style sheet; matplotlib writes them in lower case.
_INK, _FAINT, _FIRST, _SECOND = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    _FIRST: "var(--first)",
    _SECOND: "var(--second)",
}
_STYLE = {
    "savefig.transparent": True,
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _FAINT,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_MARKERS = "os^Dv"
_WIDTH = 4.8  # inches; narrow enough that the text is still readable on a phone


def loss_curve(run: Run, name: str) -> Markup:
    """Return training loss by step as a line, validation loss as points joined by a line."""
    with svg.style(_STYLE):
        figure = Figure(figsize=(_WIDTH, 2.9))
        axes = figure.subplots()
        steps, losses = [line["step"] for line in run.train], [line["loss"] for line in run.train]
        axes.plot(steps, losses, color=_FIRST, linewidth=1.4, label="training")
        if run.validation:
            points = [line["step"] for line in run.validation]
            axes.plot(
                points,
                [line["loss"] for line in run.validation],
                color=_SECOND,
                marker="o",
                markersize=5,
                label="validation",
            )
        axes.set(xlabel="step", ylabel="loss (nats per token)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.legend(loc="upper right")
        return _svg(figure, name)


def years(counts: Counter[int]) -> Markup:
    """Return documents by year of publication as bars."""
    with svg.style(_STYLE):
        figure = Figure(figsize=(_WIDTH, 2.4))
        axes = figure.subplots()
        axes.bar(list(counts), list(counts.values()), color=_FIRST, width=0.85)
        axes.set(xlabel="year", ylabel="documents")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlim(min(counts) - 1, max(counts) + 1)
        _thousands(axes)
        return _svg(figure, "years")


def lengths(words: Sequence[int]) -> Markup:
    """Return a histogram of document lengths; the longest hundredth is gathered in the last bar."""
    with svg.style(_STYLE):
        figure = Figure(figsize=(_WIDTH, 2.4))
        axes = figure.subplots()
        limit = max(float(np.quantile(words, 0.99)), 1.0)
        axes.hist(np.minimum(words, limit), bins=30, color=_FIRST, rwidth=0.9)
        axes.set(xlabel="words in a document (the longest 1 % in the last bar)", ylabel="documents")
        _thousands(axes)
        return _svg(figure, "lengths")


def intervals(comparison: Comparison) -> Markup:
    """Return each model's value with its 95 % interval as a horizontal line, the first on top."""
    with svg.style({**_STYLE, "axes.grid.axis": "x"}):
        rows = comparison.rows
        figure = Figure(figsize=(_WIDTH, 0.75 + 0.42 * len(rows)))
        axes = figure.subplots()
        percent = 100.0 if comparison.metric == "accuracy" else 1.0
        for place, row in enumerate(rows):
            estimate = row.metrics[comparison.metric]
            colour = _SECOND if place == 0 else _FIRST
            axes.plot(
                [estimate.low * percent, estimate.high * percent],
                [place, place],
                color=colour,
                linewidth=2.5,
                solid_capstyle="round",
            )
            axes.plot(estimate.value * percent, place, "o", color=colour, markersize=8)
        if comparison.chance is not None:
            axes.axvline(
                comparison.chance * percent, color=_INK, linewidth=1, linestyle=(0, (3, 3))
            )
            axes.annotate(
                "guessing",
                (comparison.chance * percent, 1),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=9,
            )
        axes.set_yticks(range(len(rows)), [_short(row.model) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(
            "accuracy, %"
            if comparison.metric == "accuracy"
            else f"{comparison.metric} (lower is better)"
        )
        return _svg(figure, f"intervals-{comparison.title}")


def reliability(task: str, bins_by_model: Mapping[str, Sequence[Mapping[str, float]]]) -> Markup:
    """Return accuracy against confidence in percent, a line a model; calibrated is the diagonal."""
    with svg.style(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.2))
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        for place, (model, bins) in enumerate(bins_by_model.items()):
            xs = [100 * entry["confidence"] for entry in bins]
            ys = [100 * entry["accuracy"] for entry in bins]
            colour, marker = _SECOND if place == 0 else _FIRST, _MARKERS[place % len(_MARKERS)]
            axes.plot(xs, ys, color=colour, marker=marker, linewidth=1.2, label=_short(model))
        axes.set(
            xlabel="probability of the chosen option, %",
            ylabel="right, %",
            xlim=(0, 100),
            ylim=(0, 100),
        )
        axes.legend(loc="upper left", fontsize=9)
        return _svg(figure, f"reliability-{task}")


def groups(name: str, by_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Markup:
    """Return each model's accuracy in percent by subject or language, with 95 % intervals."""
    with svg.style({**_STYLE, "axes.grid.axis": "x"}):
        labels = list(dict.fromkeys(group for entries in by_model.values() for group in entries))
        # of a group, in inches: markers of all models below each other
        height = max(0.34, 0.13 * len(by_model))
        legend = 0.1 * len(by_model)
        figure = Figure(figsize=(_WIDTH, 1.0 + legend + height * len(labels)))
        axes = figure.subplots()
        for place, (model, entries) in enumerate(by_model.items()):
            rows = [
                labels.index(group)
                + min(0.16, 0.8 / len(by_model)) * (place - (len(by_model) - 1) / 2)
                for group in entries
            ]
            values = [100 * entry["value"] for entry in entries.values()]
            errors = [
                [100 * max(abs(entry["value"] - entry[end]), 0) for entry in entries.values()]
                for end in ("low", "high")
            ]
            colour, marker = _SECOND if place == 0 else _FIRST, _MARKERS[place % len(_MARKERS)]
            axes.errorbar(
                values,
                rows,
                xerr=errors,
                fmt=marker,
                color=colour,
                markersize=5,
                linewidth=1.4,
                label=_short(model),
            )
        axes.set_yticks(range(len(labels)), [label.replace("_", " ") for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlabel("accuracy, %")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        return _svg(figure, name)


def _short(name: str) -> str:
    """Return a name shortened for a figure, keeping its beginning and end (steps and sizes)."""
    short = name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}"
    # matplotlib's legend leaves out names that begin so
    return f"\N{ZERO WIDTH SPACE}{short}" if short.startswith("_") else short


def _thousands(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))


def _svg(figure: Figure, name: str) -> Markup:
    """Return the figure with the page's colors and ids unique on it."""
    return Markup(svg.render(figure, name, _VARIABLES))  # its text is escaped
