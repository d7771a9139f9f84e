"""Text of an XML element with the markup that MEDLINE uses inside titles and abstracts.

The rules, so that a number never changes its value and nothing is lost:
- bold, italic, underlined: their text.
- subscript: its text ("CO2", "log10"); superscript: its text ("CD4+", "18F"), but with a caret when it is a number that stands
  directly behind a letter, a digit or a closing bracket ("10^3", "m^2", "s^-1").
- MathML: the same for scripts, a/b for fractions, √(x) for roots, the rest in reading order without layout spaces.
- entities that were escaped twice ("&amp;lt;") become their character; white space of any kind becomes single spaces.
"""

import html
import re
from collections.abc import Iterator

from lxml import etree

from data_prep.readers.xml_tree import inline_text, tag_of

_NUMBER = re.compile(r"[-−–+]?\d+([.,/]\d+)?")
_ESCAPED = re.compile(r"&(#\d+|#x[0-9a-fA-F]+|[a-zA-Z]+\d*);")
MATHML = "{http://www.w3.org/1998/Math/MathML}"


def plain_text(element: etree._Element) -> str:
    """Return all text inside an element on one line, markup turned into plain characters."""
    return clean(inline_text(element, _one))


def clean(text: str) -> str:
    """Return text with entities that were escaped twice as characters and with single spaces."""
    return " ".join(_ESCAPED.sub(lambda found: html.unescape(found[0]), text).split())


def _one(child: etree._Element, before: str) -> str:
    """Return the text of one child element that stands behind the text `before`."""
    if child.tag is etree.Entity:
        return html.unescape(child.text or "")
    if not isinstance(child.tag, str):  # comment, processing instruction
        return ""
    if child.tag.startswith(MATHML):
        return math(child)
    inner = inline_text(child, _one)
    return superscript(inner, before) if child.tag == "sup" else inner


def superscript(raised: str, before: str) -> str:
    """Return raised text as it stands behind the text `before`."""
    is_power = _NUMBER.fullmatch(raised.strip()) and before[-1:] and (before[-1].isalnum() or before[-1] in ")]}")
    return f"^{raised.strip()}" if is_power else raised


def math(element: etree._Element) -> str:
    """Return a MathML element as one line of plain characters."""
    kind = tag_of(element)
    if kind == "semantics":  # the formula, then the same again in other notations
        return math(next(_elements(element)))
    parts = [math(child) for child in _elements(element)]
    if not parts:
        return " " if kind == "mspace" else " ".join((element.text or "").split())
    if kind == "msup" and len(parts) == 2:
        return parts[0] + superscript(parts[1], parts[0])
    if kind == "msubsup" and len(parts) == 3:
        return parts[0] + parts[1] + superscript(parts[2], parts[0])
    if kind == "mfrac" and len(parts) == 2:
        return "/".join(part if part.isalnum() else f"({part})" for part in parts)
    if kind == "msqrt":
        return f"√({''.join(parts)})"
    if kind in ("mtable", "mtr", "mlabeledtr"):
        return ("; " if kind == "mtable" else " ").join(part for part in parts if part.strip())
    if kind == "mfenced":
        return element.get("open", "(") + element.get("separators", ",")[:1].join(parts) + element.get("close", ")")
    return "".join(parts)


def _elements(element: etree._Element) -> Iterator[etree._Element]:
    return (child for child in element if isinstance(child.tag, str))
