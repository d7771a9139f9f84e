"""The text of a JATS body, found independently of the reader.

It is runs of letters and digits between block boundaries.
"""

from lxml import etree

FLOATS = {"fig", "table-wrap", "boxed-text", "fn", "supplementary-material"}
INLINE = {
    "bold", "italic", "sub", "sup", "sc", "underline", "monospace", "overline", "named-content",
    "styled-content", "ext-link", "email", "uri", "xref", "abbrev", "inline-formula", "roman",
    "sans-serif", "funding-source",
}  # fmt: skip
DROPPED = {
    "graphic",
    "inline-graphic",
    "media",
    "object-id",
    "alt-text",
    "long-desc",
    "permissions",
    "annotation",
    "annotation-xml",
}
BREAK = "\0"


def plain(text):
    """Letters and digits only.

    Brackets, carets and spaces around markup are the reader's to choose.
    """
    return "".join(character for character in text if character.isalnum())


def segments(element):
    """Return (runs of prose, [runs of each float]); a run is text without block boundaries."""
    floats = []
    prose = _walk(element, floats)
    return _runs(prose), [_runs(text) for text in floats]


def _runs(text):
    return [run for run in (plain(part) for part in text.split(BREAK)) if run]


def _walk(element, floats):
    text = element.text or ""
    for child in element:
        text += _child(child, floats) + (child.tail or "")
    return text


def _child(child, floats):
    if not isinstance(child.tag, str):
        return ""
    tag = etree.QName(child).localname
    if tag in DROPPED:
        return ""
    if tag in FLOATS:
        inner = []
        floats.append(_walk(child, inner))
        floats.extend(inner)
        return ""
    if tag == "alternatives" and child.find(".//tex-math") is not None:
        return BREAK
    if "MathML" in child.tag or tag in INLINE:
        return _walk(child, floats)
    return BREAK + _walk(child, floats) + BREAK


def missing(element, output):
    """Return the runs of `element` that are missing from `output`.

    Runs must be in order, those of floats in order within each float.
    """
    prose, floats = segments(element)
    written = plain(output)
    absent = []
    for runs in [prose, *floats]:
        position = 0
        for run in runs:
            start = written.find(run, position)
            if start < 0:
                absent.append(run)
            else:
                position = start + len(run)
    return absent
