"""Figures of all generated pages: matplotlib to inline SVG in the colors of the page's style.

    with svg.style({"font.size": 9}):
        figure = Figure(figsize=(svg.WIDTH, 3))
        figure.subplots().plot(steps, losses, color=svg.FIRST)
        page += svg.render(figure, "loss")

The colors are variables of the style sheet, so a figure follows the page to dark mode. Figures are
made of `matplotlib.figure.Figure`, not by pyplot: nothing has to be closed and no display is
needed. matplotlib takes a second to import, so it is imported where it is used.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

WIDTH = 4.8
"""Inches; narrow enough that the text is still readable on a phone."""

# Placeholders of the style sheet's variables; matplotlib writes colors in lower case.
INK = "#010101"
FAINT = "#020202"
FIRST = "#030303"
SECOND = "#040404"
BETTER = "#050505"
WORSE = "#060606"
SOFT = "#070707"
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    BETTER: "var(--better)",
    WORSE: "var(--worse)",
    SOFT: "var(--soft)",
}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "galen",  # the same figures give the same bytes
    "text.parse_math": False,  # a dollar in a name is a dollar
    "savefig.transparent": True,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
"""Settings of matplotlib for all figures."""


@contextlib.contextmanager
def style(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw and render with `STYLE` and a figure's own settings of matplotlib."""
    import matplotlib

    with matplotlib.rc_context({**STYLE, **(settings or {})}):
        yield


def render(figure: "Figure", id_prefix: str) -> "Markup":
    """Return a figure as an `<svg>` element that fills the available width.

    Args:
        figure: made and rendered within `style`.
        id_prefix: makes the element's ids unique on the page.
    """
    from markupsafe import Markup

    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _with_prefix(text, re.sub(r"[^a-zA-Z0-9]+", "-", id_prefix))
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return Markup(text)  # matplotlib has escaped its text


def _with_prefix(text: str, prefix: str) -> str:
    """Put a prefix before all ids and references, and remove the size in points."""
    for attribute in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", text, count=1)
    text = text.replace('id="', f'id="{prefix}-')
    text = text.replace("url(#", f"url(#{prefix}-")
    return text.replace('href="#', f'href="#{prefix}-')
