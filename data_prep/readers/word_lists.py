"""Lists of HTML that Microsoft Word exports.

Turns paragraphs that only look like items into `ul` and `ol`.
"""

import re
from typing import Any

import lxml.html

from data_prep.readers.xml_tree import Element, tag_of

_LEVEL = re.compile(r"mso-list\s*:[^;]*\blevel(\d+)", re.IGNORECASE)
_MARK = re.compile(r"mso-list\s*:\s*ignore", re.IGNORECASE)
_NUMBER = re.compile(r"[\s(]*(?:\d+|[a-zA-Z]|[ivxlcIVXLC]+)[.)]")
_BULLET = re.compile(r"\s*[·•▪●○■§\uf0a7\uf0b7o-][\s\u00a0]+")
_DEEPEST = 9


def clean_word(root: Element) -> None:
    """Unwrap Office's own elements (`o:p`) and turn Word's item paragraphs into lists."""
    own: list[Any] = [
        element
        for element in root.iter()
        if ":" in tag_of(element) and element.getparent() is not None
    ]
    for element in own:
        element.drop_tag()
    _make_lists(root)


def is_word_export(root: Element) -> bool:
    """Return whether Word wrote a page."""
    names = [
        meta.get("content") or ""
        for meta in root.iter("meta")
        if (meta.get("name") or "").lower() in ("generator", "progid")
    ]
    return any(name.startswith(("Microsoft Word", "Word.Document")) for name in names)


def _make_lists(root: Element) -> None:
    """Make a list of each run of paragraphs that Word marks as items.

    The marks are `MsoListParagraph` and `mso-list: l0 level1 lfo1`.

    Their own bullets and numbers go; an item of a deeper level is in a list in the item before
    it.
    """
    last: Element | None = None
    lists: list[Element] = []
    for paragraph in list(root.iter("p")):
        if not _is_item(paragraph) or paragraph.getparent() is None:
            continue
        level = _level(paragraph)
        follows = (
            last is not None and paragraph.getprevious() is last and not (last.tail or "").strip()
        )
        is_numbered = _take_mark(paragraph)
        if not follows:
            lists = []
        del lists[level:]
        while len(lists) < level:
            lists.append(_new_list(lists, paragraph, is_numbered))
        item = paragraph
        tail = item.tail
        item.tail = None
        if lists[0].getparent() is None:
            _replace(paragraph, lists[0], tail)
        else:
            lists[0].tail = tail
        lists[-1].append(item)
        item.tag = "li"
        item.attrib.clear()  # by which trafilatura would take it for something beside the content
        last = lists[0]


def _is_item(paragraph: Element) -> bool:
    named = (paragraph.get("class") or "").lower()
    return named.startswith("msolist") or _LEVEL.search(paragraph.get("style") or "") is not None


def _level(paragraph: Element) -> int:
    match = _LEVEL.search(paragraph.get("style") or "")
    return min(int(match[1]), _DEEPEST) if match and int(match[1]) else 1


def _new_list(lists: list[Element], paragraph: Element, is_numbered: bool) -> Element:
    """Return an empty list, which is in the last item of the list around it."""
    made = lxml.html.Element("ol" if is_numbered else "ul")
    if lists:
        items = lists[-1]
        (items[-1] if len(items) else items).append(made)
    return made


def _replace(paragraph: Element, made: Element, tail: str | None) -> None:
    parent = paragraph.getparent()
    assert parent is not None
    parent.replace(paragraph, made)
    made.tail = tail


def _take_mark(paragraph: Element) -> bool:
    """Take the bullet or number of an item away; say whether it was a number."""
    inner: list[Any] = [part for part in paragraph.iterdescendants() if tag_of(part)]
    for part in inner:
        if _MARK.search(part.get("style") or ""):
            text = "".join(map(str, part.itertext()))
            part.drop_tree()
            return _NUMBER.match(text) is not None
    text = paragraph.text or ""
    if match := _BULLET.match(text):
        paragraph.text = text[match.end() :]
    return False
