"""Generated HTML pages: one base template, one style, no file or script from elsewhere.

    page.render(Path(__file__).parent / "report.html.j2", title="Corpus", counts=counts)

A page's template begins with `{% extends "base.html.j2" %}` and fills the blocks `lead` (below the
title) and `content`; `macros.html.j2` holds what several pages use. All values are escaped.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """Return a page as HTML.

    Args:
        template: the page's template.
        filters: Jinja filters of this page, besides `count` (1,234) and `percent`.
        values: names in the template; `title` is required.

    Raises:
        jinja2.TemplateError: the template uses a name that `values` lacks.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"count": count, "percent": percent, **(filters or {})}
    return environment.get_template(template.name).render(values)


def count(number: int) -> str:
    """Return a number with thousands separators."""
    return f"{number:,}"


def percent(part: int, total: int) -> str:
    """Return a part of a total in percent; a small part is never shown as zero."""
    value = 100 * part / total if total else 0.0
    return "< 0.1 %" if 0 < value < 0.1 else f"{value:.1f} %"
