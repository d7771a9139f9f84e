"""Pictures of the corpus report, as inline SVG with text as text."""

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "galen",  # the same corpus gives the same bytes
    "font.size": 9,
    "text.parse_math": False,  # a dollar in a source's name is a dollar
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}
_COLOUR = "#2a6f97"


def columns(values: Sequence[tuple[str, int]], unit: str) -> Markup:
    """Return upright columns in the order given, for years and lengths."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 2.6))
        places = range(len(values))
        axes.bar(places, [count for _, count in values], color=_COLOUR)
        step = max(1, len(values) // 12)
        axes.set_xticks(list(places)[::step], [label for label, _ in values][::step])
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_ylabel(unit)
        return _svg(figure)


def bars(values: Sequence[tuple[str, int]], unit: str) -> Markup:
    """Return lying bars, the first at the top, each with its number."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.5 + 0.24 * len(values)))
        drawn = axes.barh(range(len(values)), [count for _, count in values], color=_COLOUR)
        axes.bar_label(drawn, [f" {count:,}" for _, count in values])
        axes.set_yticks(range(len(values)), [label for label, _ in values])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.15)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlabel(unit)
        return _svg(figure)


def _svg(figure: Figure) -> Markup:
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
    )
    plt.close(figure)
    text = stream.getvalue()
    return Markup(text[text.index("<svg") :])
