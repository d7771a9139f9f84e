"""Figures of all generated pages: matplotlib to inline SVG.

    with svg.style({"font.size": 9}):
        figure = Figure(figsize=(6, 3))
        figure.subplots().plot(steps, losses)
        page += svg.render(figure)

Figures are made of `matplotlib.figure.Figure`, not by pyplot: nothing has to be closed and no
display is needed. matplotlib takes a second to import, so it is imported where it is used.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "galen",  # the same figures give the same bytes
    "text.parse_math": False,  # a dollar in a name is a dollar
}
"""Settings of matplotlib for all figures."""


@contextlib.contextmanager
def style(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw and render with `STYLE` and a page's own settings of matplotlib."""
    import matplotlib

    with matplotlib.rc_context({**STYLE, **(settings or {})}):
        yield


def render(figure: "Figure", id_prefix: str = "", colors: Mapping[str, str] | None = None) -> str:
    """Return a figure as an `<svg>` element; its text is escaped.

    Args:
        figure: made and rendered within `style`.
        id_prefix: makes the element's ids unique on a page with several figures. Such a figure has
            no size of its own, so that it fills the width it is given.
        colors: in the figure, in lower case, and what replaces them, such as variables of the
            page's style sheet.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    if id_prefix:
        text = _with_prefix(text, re.sub(r"[^a-zA-Z0-9]+", "-", id_prefix))
    for color, replacement in (colors or {}).items():
        text = text.replace(color, replacement)
    return text


def _with_prefix(text: str, prefix: str) -> str:
    """Put a prefix before all ids and references, and remove the size in points."""
    for attribute in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", text, count=1)
    text = text.replace('id="', f'id="{prefix}-')
    text = text.replace("url(#", f"url(#{prefix}-")
    return text.replace('href="#', f'href="#{prefix}-')
