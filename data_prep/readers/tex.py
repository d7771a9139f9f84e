"""TeX of formulas in JATS: the formula itself, without the document around it."""

import html
import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from data_prep.readers.xml_tree import Element

_DOCUMENT = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
_ARGUMENTS = r"(?:\s*(?:\[[^\]]*\]|\{(?:[^{}]|\{[^{}]*\})*\}|\\[a-zA-Z]+(?=\s*\{)))*"
_COMMANDS = (
    "documentclass|documentstyle|usepackage|RequirePackage|setlength|addtolength|pagestyle|thispagestyle|newcommand|renewcommand|"
    "providecommand|DeclareMathOperator|DeclareMathSizes|DeclareFontFamily|DeclareFontShape|newenvironment|makeatletter|makeatother"
)
_PREAMBLE = re.compile(rf"\s*(?:\\(?:{_COMMANDS})\*?{_ARGUMENTS}\s*)+")
_NUMBERED = r"equation\*?|displaymath|math"
_ENVIRONMENT = re.compile(rf"\\begin\s*\{{({_NUMBERED})\}}(.*)\\end\s*\{{\1\}}", re.DOTALL)
_BRACKETED = re.compile(r"\\\[(.*)\\\]|\\\((.*)\\\)", re.DOTALL)
_EDITORS_MARKS = ("page", "lb", "pb", "brk", "oxy", "xml-", "a3b2", "pub", "thyme", "query", "au")
"""How the names of processing instructions begin that concern layout or editing and hold no TeX."""


def tex_formula(element: Element) -> str:
    """Return what a `tex-math` element says as `$…$`; "" when there is no formula in it."""
    source = _source(element)
    if match := _DOCUMENT.search(source):
        source = match[1]
    source = _PREAMBLE.sub("", source, count=1) if _PREAMBLE.match(source) else source
    before = None
    while before != source:  # "$$\begin{equation}…\end{equation}$$"
        before = source
        source = source.strip().strip("$").strip()
        if (match := _ENVIRONMENT.fullmatch(source)) or (match := _BRACKETED.fullmatch(source)):
            source = (match[match.lastindex or 0] or "").strip()
    return f"${source}$" if source else ""


def _source(element: Element) -> str:
    """Return the TeX as text.

    If there is none, that in a processing instruction (`<?CDATA …?>`) or a comment.
    """
    text = "".join(_texts(element))
    if text.strip():
        return text
    hidden = [_instruction(node) for node in element.iter(etree.PI)]
    return "".join(hidden) or "".join(node.text or "" for node in element.iter(etree.Comment))


def _texts(element: Element) -> Iterator[str]:
    """Yield the text nodes of an element.

    Also the text of `<?CDATA …?>`, which represents a CDATA section.
    """
    yield element.text or ""
    for child in element:
        if child.tag is etree.Entity:
            yield html.unescape(child.text or "")
        elif child.tag is etree.PI:
            yield _instruction(child) if _target(child) in ("cdata", "tex", "latex", "math") else ""
        elif child.tag is not etree.Comment:
            yield from _texts(child)
        yield child.tail or ""


def _target(node: Any) -> str:
    """Return the name of a processing instruction."""
    return str(node.target).lower()


def _instruction(node: Element) -> str:
    if _target(node).startswith(_EDITORS_MARKS):
        return ""
    text = (node.text or "").strip()
    return (
        text.removeprefix("[").removesuffix("]]").removesuffix("]")
        if text.startswith("[") and text.endswith("]")
        else text
    )
