"""Figures of the corpus report, as inline SVG with text as text."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from galen import svg

_STYLE = {
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}
_COLOR = "#2a6f97"


def columns(values: Sequence[tuple[str, int]], unit: str) -> Markup:
    """Return vertical bars in the order of the values, for years and lengths."""
    with svg.style(_STYLE):
        figure = Figure(figsize=(6.4, 2.6))
        axes = figure.subplots()
        positions = range(len(values))
        axes.bar(positions, [count for _, count in values], color=_COLOR)
        step = max(1, len(values) // 12)
        axes.set_xticks(list(positions)[::step], [label for label, _ in values][::step])
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_ylabel(unit)
        return Markup(svg.render(figure))  # its text is escaped


def bars(values: Sequence[tuple[str, int]], unit: str) -> Markup:
    """Return horizontal bars, the first at the top, each with its number."""
    with svg.style(_STYLE):
        figure = Figure(figsize=(6.4, 0.5 + 0.24 * len(values)))
        axes = figure.subplots()
        drawn = axes.barh(range(len(values)), [count for _, count in values], color=_COLOR)
        axes.bar_label(drawn, [f" {count:,}" for _, count in values])
        axes.set_yticks(range(len(values)), [label for label, _ in values])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.15)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlabel(unit)
        return Markup(svg.render(figure))  # its text is escaped
