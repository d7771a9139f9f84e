"""XML from outside as a tree, and what the readers of structured text have in common when they walk through it."""

from collections.abc import Callable

from lxml import etree

Element = etree._Element
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
TOO_DEEP = ("too deep", "elements are nested hundreds of levels deep")
"""Reason and detail of the quarantine for a document on which walking through the tree ends with a `RecursionError`."""
HREF = "{http://www.w3.org/1999/xlink}href"


def parse_xml(data: bytes) -> Element:
    """Return the root element of a document; no DTD and no entity is loaded or expanded, and there is no limit on depth or size.

    Raises:
        lxml.etree.XMLSyntaxError: it is not well-formed.
    """
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=True))


def strip_namespace(root: Element, namespace: str) -> None:
    """Take a namespace off the names of all elements that have it."""
    for element in root.iter(f"{{{namespace}}}*"):
        element.tag = tag_of(element)


def tag_of(element: Element) -> str:
    """Return the element's name without namespace; "" for comments and processing instructions.

    Unlike `etree.QName` it takes names that XML forbids, which the HTML parser makes of a page with a bare "<" before a word.
    """
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def inline_text(element: Element, one: Callable[[Element, str], str]) -> str:
    """Return the text of an element on which `one` decides for each child, given the child and the text before it."""
    text = element.text or ""
    for child in element:
        text += one(child, text) + (child.tail or "")
    return text
