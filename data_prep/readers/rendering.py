"""Rendering of citations, figures, tables and formulas, the same for every structured source.

With special tokens they are MEDITRON's: `[bib_ref]Title, Name[/bib_ref]`, `[fig_ref]Figure 2:
caption[/fig_ref]`, `[fig]caption[/fig]`, `[table]caption[/table]`, `[formula]…[/formula]`; titles
and captions inside references are cut to 12 words.
"""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.readers.common_options import ReaderOptions
from galen.recipe import STRICT

_WORDS = 12
_DROPPED = "\ue000"  # private use: no text holds it; `tidy` takes it out together with its brackets
_SEPARATORS = r"(?:[\s,;–—-]|and|&)*"
_DROPPED_LIST = rf"{_DROPPED}(?:{_SEPARATORS}{_DROPPED})*"
_IN_BRACKETS = rf"(?:\[\s*{_DROPPED_LIST}\s*\]|\(\s*{_DROPPED_LIST}\s*\))"
_BRACKETED = re.compile(rf"\s*{_IN_BRACKETS}(?:[\s,;–—-]*{_IN_BRACKETS})*")
_OPENING = re.compile(rf"([\[(])(?:\s*{_DROPPED_LIST}[\s,;:]*|\s*[,;]\s*)")
_CLOSING = re.compile(rf"[\s,;]*{_DROPPED_LIST}(?=[\])])")
_BARE = re.compile(rf"\s*{_DROPPED_LIST}")
_TAGGED = r"\[bib_ref\](?:(?!\[bib_ref\]).)*?\[/bib_ref\]"
_TAGGED_IN_BRACKETS = re.compile(
    rf"\[((?:\s*{_TAGGED}[\s,;–—-]*)+)\]|\(((?:\s*{_TAGGED}[\s,;–—-]*)+)\)"
)


def shortened(text: str) -> str:
    """Return the first 12 words, with "..." when there are more."""
    words = text.split()
    return " ".join(words[:_WORDS]) + ("..." if len(words) > _WORDS else "")


@dataclass(kw_only=True, config=STRICT)
class MarkupOptions(ReaderOptions):
    """Options of the readers of structured papers."""

    citations: Literal["bib_ref", "marker", "drop"] = Field(
        default="bib_ref",
        description=(
            "How citations are written. bib_ref: `[bib_ref]first 12 words of the title...,"
            ' Name[/bib_ref]`; marker: as printed ("[12]"); drop: left out with the brackets around'
            " them."
        ),
    )

    figures: Literal["tokens", "captions", "drop"] = Field(
        default="tokens",
        description=(
            "How figures, tables and display formulas are written. tokens: captions in `[fig]`,"
            " `[table]` and formulas in `[formula]`, as in MEDITRON, and references to them in"
            " `[fig_ref]`; captions: the same as plain paragraphs; drop: left out (formulas stay,"
            " as plain text)."
        ),
    )


@dataclass(kw_only=True, config=STRICT)
class MarkupTableOptions(MarkupOptions):
    """Options of the readers of structured papers that have the cells of tables."""

    table_bodies: bool = Field(
        default=False,
        description="Also write the cells of tables, as Markdown rows below the caption.",
    )


class MarkupRenderer:
    """Renders citations, figures, tables and formulas as the options say."""

    def __init__(self, options: MarkupOptions) -> None:
        self.options = options

    def citation(self, marker: str, cited: Sequence[tuple[str, str]]) -> str:
        """Return a citation.

        Takes its marker as printed, and (title, first author's last name) of each known work.
        """
        if self.options.citations == "marker":
            return marker
        works = [_work_text(title, name) for title, name in cited if title or name]
        if self.options.citations == "drop" or not works:
            return _DROPPED
        return ", ".join(f"[bib_ref]{work}[/bib_ref]" for work in works)

    def reference(self, marker: str, caption: str) -> str:
        """Return a reference to a figure or table from its printed marker and its caption."""
        if self.options.figures != "tokens" or not caption:
            return marker
        return f"[fig_ref]{marker}: {shortened(caption)}[/fig_ref]" if marker else ""

    def figure_or_table(self, token: str, label: str, caption: str, body: str = "") -> str:
        """Return a figure or table, or "" when it is left out.

        Args:
            token: "fig" or "table", the name of its special tokens.
            label: its printed label, "Figure 1".
            caption: its caption on one line.
            body: the cells of a table as Markdown rows, where they are written.
        """
        if self.options.figures == "drop":
            return ""
        text = ": ".join(part for part in (label.rstrip(" .:"), caption) if part)
        if body:
            text = f"{text}\n{body}" if text else body
        return f"[{token}]{text}[/{token}]" if text and self.options.figures == "tokens" else text

    def formula(self, text: str) -> str:
        """Return a formula that is on a line of its own."""
        return f"[formula]{text}[/formula]" if text and self.options.figures == "tokens" else text


def _work_text(title: str, name: str) -> str:
    """Return a cited work as the beginning of its title and its first author's last name."""
    return ", ".join(part for part in (shortened(title), name) if part)


def tidy(text: str) -> str:
    """Return a paragraph without the brackets, separators and spaces of removed citations.

    Also of citations written in full.
    """
    if _DROPPED in text:
        text = _OPENING.sub(r"\1", _BRACKETED.sub("", text))
        text = _BARE.sub("", _CLOSING.sub("", text))
    if "[bib_ref]" in text:
        text = _TAGGED_IN_BRACKETS.sub(lambda match: (match[1] or match[2]).strip(), text)
    return text


def heading(depth: int, text: str) -> str:
    """Return a Markdown header; "" without text."""
    return f"{'#' * max(1, min(depth, 6))} {text}" if text else ""


def _table_row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def table_rows(rows: Sequence[Sequence[str]], header_rows: int = 1) -> str:
    """Return cells as Markdown rows, the header's first, with a line of dashes below them."""
    lines = [_table_row(row) for row in rows if any(row)]
    if lines and 0 < header_rows < len(lines):
        lines.insert(header_rows, "|" + " --- |" * max(len(row) for row in rows))
    return "\n".join(lines)
