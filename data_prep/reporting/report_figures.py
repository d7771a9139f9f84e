"""Figures of the corpus report as inline SVG."""

from collections.abc import Mapping

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from galen import svg

_MAX_LABELS = 8


def years(documents: Mapping[int, int]) -> Markup:
    """Return documents by year of publication as bars, with a gap for a year without any."""
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 2.4))
        axes = figure.subplots()
        axes.bar(list(documents), list(documents.values()), color=svg.FIRST, width=0.85)
        axes.set_xlim(min(documents) - 1, max(documents) + 1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("year")
        _count_documents(axes)
        return svg.render(figure, "years")


def lengths(documents: Mapping[int, int]) -> Markup:
    """Return documents by length in tokens as bars on a scale of powers of two.

    `documents` is by the bits of the length: 0 for empty documents, n for 2^(n-1) to 2^n - 1.
    """
    with svg.style():
        figure = Figure(figsize=(svg.WIDTH, 2.4))
        axes = figure.subplots()
        positions = range(min(documents), max(documents) + 1)
        axes.bar(
            [position + 0.5 for position in positions],
            [documents.get(position, 0) for position in positions],
            color=svg.FIRST,
            width=0.85,
        )
        edges = range(positions.start, positions.stop + 1)
        shown = edges[:: 1 + len(edges) // _MAX_LABELS]
        axes.set_xticks(list(shown), [_tokens(edge) for edge in shown])
        axes.set_xlabel("tokens in a document")
        _count_documents(axes)
        return svg.render(figure, "lengths")


def _tokens(bits: int) -> str:
    """Return the least length of so many bits: 0, 1, 2, … 512, 1k, 2k … 1M."""
    least = 2 ** (bits - 1) if bits else 0
    for unit, size in (("M", 1 << 20), ("k", 1 << 10)):
        if least >= size:
            return f"{least // size}{unit}"
    return str(least)


def _count_documents(axes: Axes) -> None:
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("documents")
