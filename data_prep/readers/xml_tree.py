"""Untrusted XML as a tree, and the tree walking that the readers of structured text share."""

from collections.abc import Callable

from lxml import etree

Element = etree._Element
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
TOO_DEEP = ("too deep", "elements are nested hundreds of levels deep")
"""Quarantine reason and detail for a document whose tree is too deep for Python's recursion."""
MATHML = "{http://www.w3.org/1998/Math/MathML}"
HREF = "{http://www.w3.org/1999/xlink}href"

_CONTEXT = 40
"""Characters of the surrounding text that decide how a child is written."""


def parse_xml(data: bytes) -> Element:
    """Return the root element of a document.

    No DTD and no entity is loaded or expanded, and there is no limit on depth or size.

    Raises:
        lxml.etree.XMLSyntaxError: it is not well-formed.
    """
    return etree.fromstring(
        data,
        etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=True),
    )


def strip_namespaces(root: Element) -> None:
    """Strip the namespaces, default or prefixed, from the names of all elements, but keep MathML's.

    A formula is recognised by its namespace: a `math` without one, or with an outdated one, gets
    MathML's.
    """
    for element in root.iter("{*}*"):
        tag: str = element.tag
        if tag.startswith(MATHML):
            continue
        name = tag.rpartition("}")[2]
        if name == "math":
            _name_mathml(element)
        elif name != tag:
            element.tag = name


def _name_mathml(formula: Element) -> None:
    for element in formula.iter("{*}*"):
        element.tag = MATHML + tag_of(element)


def tag_of(element: Element) -> str:
    """Return the element's name without namespace; "" for comments and processing instructions.

    Unlike `etree.QName` it takes names that XML forbids, which the HTML parser makes of a page with
    a bare "<" before a word.
    """
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def inline_text(element: Element, one: Callable[[Element, str], str], before: str = "") -> str:
    """Return the text of an element, in which `one` decides for each child.

    It is given the child and the text before it.

    Args:
        element: the element.
        one: says what is written for a child.
        before: the text before the element, which a child at its beginning follows.
    """
    context = before[-_CONTEXT:]
    text = context + (element.text or "")
    for child in element:
        text += one(child, text) + (child.tail or "")
    return text[len(context) :]


def text_after(element: Element) -> str:
    """Return the beginning of the text after an element, also if it is in another element.

    "" at the end.
    """
    node: Element | None = element
    while node is not None:
        if node.tail:
            return node.tail[:_CONTEXT]
        if (following := node.getnext()) is not None:
            text = "".join(str(part) for part in following.itertext())
            if text:
                return text[:_CONTEXT]
            node = following
        else:
            node = node.getparent()
    return ""
