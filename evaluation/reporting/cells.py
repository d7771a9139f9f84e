"""Escaping of text from models and data sets in cells of tables."""

import re

_FORMULA = re.compile(
    r"\s*[=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    r"\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}]"
)
_LATEX = {ord(sign): f"\\{sign}" for sign in "&%$#_{}"} | {
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("<"): r"\textless{}",
    ord(">"): r"\textgreater{}",
    ord("|"): r"\textbar{}",
}


def for_csv(text: str) -> str:
    """Return a cell that spreadsheets read as text: an apostrophe before a possible formula."""
    return f"'{text}" if _may_be_formula(text.lstrip("'")) else text


def from_csv(cell: str) -> str:
    """Return the text of a cell that `for_csv` returned."""
    return cell[1:] if cell.startswith("'") and _may_be_formula(cell.lstrip("'")) else cell


def for_latex(text: str) -> str:
    """Return a cell of a LaTeX table.

    Escapes `[` and `*`, which LaTeX would read as arguments of the preceding row end.
    """
    cell = " ".join(text.translate(_LATEX).split())
    return f"{{{cell[0]}}}{cell[1:]}" if cell.startswith(("[", "*")) else cell


def for_markdown(text: str) -> str:
    """Return a cell of a Markdown table."""
    cell = text.replace("\\", "\\\\").replace("|", "\\|").replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(cell.split())


def _may_be_formula(text: str) -> bool:
    if text.startswith(("\t", "\r", "\n")):
        return True
    return _FORMULA.match(text) is not None and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
