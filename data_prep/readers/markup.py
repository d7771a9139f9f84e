"""Text of an XML element with the markup that MEDLINE uses inside titles and abstracts.

The rules, so that a number never changes its value and nothing is lost:
- bold, italic, underlined: their text.
- subscript: its text ("CO2", "log10"); superscript: its text ("CD4+", "18F"), but with a caret when
  it is a power ("10^3", "m^2", "s^-1"): data_prep/readers/superscripts.py.
- MathML: the same for scripts, a/b for fractions, √(x) for roots, the rest in reading order without
  layout spaces.
- entities that were escaped twice ("&amp;lt;") become their character; white space of any kind
  becomes single spaces.
- control characters U+0080 to U+009F mean what windows-1252 has there: quotes and dashes of a file
  labelled Latin 1, "&#146;".
"""

import html
import re
from collections.abc import Iterator

from lxml import etree

from data_prep.readers.superscripts import JOINED, superscript, superscript_text
from data_prep.readers.xml_tree import MATHML, inline_text, tag_of

_ESCAPED = re.compile(r"&(#\d+|#x[0-9a-fA-F]+|[a-zA-Z]+\d*);")
_CONTROLS = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
_CONTROL = re.compile("[\x80-\x9f]")
_POWER = re.compile(rf"\s*{JOINED}")
_SCRIPT = re.compile(r"[-−–+]?[\w.,·/]+")
_CHARGE = re.compile(r"\d*[-−–+]|\W*")


def plain_text(element: etree._Element) -> str:
    """Return all text inside an element on one line, markup turned into plain characters."""
    return clean(inline_text(element, _inline))


def clean(text: str) -> str:
    """Return text with entities that were escaped twice as characters and with single spaces.

    Control characters that windows-1252 has as punctuation become that.
    """
    if _CONTROL.search(text):
        text = text.translate(_CONTROLS)
    if JOINED in text:
        text = _POWER.sub("", text)
    return " ".join(_ESCAPED.sub(lambda match: html.unescape(match[0]), text).split())


def _inline(child: etree._Element, before: str) -> str:
    """Return the text of one child element that follows the text `before`."""
    if child.tag is etree.Entity:
        return html.unescape(child.text or "")
    if not isinstance(child.tag, str):  # comment, processing instruction
        return ""
    if child.tag.startswith(MATHML):
        return math(child)
    if child.tag == "sup":
        return superscript_text(child, _inline, _is_sup, before)
    return inline_text(child, _inline, before)


def _is_sup(element: etree._Element) -> bool:
    return element.tag == "sup"


def math(element: etree._Element) -> str:
    """Return a MathML element as one line of plain characters."""
    tag = tag_of(element)
    if tag == "semantics":  # the formula, then the same again in other notations
        return math(next(_elements(element)))
    parts = [math(child) for child in _elements(element)]
    if not parts:
        return " " if tag == "mspace" else " ".join((element.text or "").split())
    if tag == "msup" and len(parts) == 2:
        return parts[0] + _script(parts[1], parts[0])
    if tag == "msubsup" and len(parts) == 3:
        return parts[0] + parts[1] + _script(parts[2], parts[0])
    if tag == "mfrac" and len(parts) == 2:
        return "/".join(part if part.isalnum() else f"({part})" for part in parts)
    if tag == "msqrt":
        return f"√({''.join(parts)})"
    if tag in ("mtable", "mtr", "mlabeledtr"):
        separator = "; " if tag == "mtable" else " "
        return separator.join(part for part in parts if part.strip())
    if tag == "mfenced":
        content = element.get("separators", ",")[:1].join(parts)
        return element.get("open", "(") + content + element.get("close", ")")
    return "".join(parts)


def _script(raised: str, base: str) -> str:
    """Return an exponent of a formula: "^2", "^-kt", "^(n + 1)".

    Charges, primes and stars stay as they are.
    """
    power = superscript(raised, base).removeprefix(JOINED)
    if power != raised or _CHARGE.fullmatch(raised.strip()):
        return power
    return f"^{raised}" if _SCRIPT.fullmatch(raised) else f"^({raised})"


def _elements(element: etree._Element) -> Iterator[etree._Element]:
    return (child for child in element if isinstance(child.tag, str))
