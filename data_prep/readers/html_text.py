"""The content of a web page as Markdown: headers, paragraphs, lists, tables, quotations.

A CSS selector or, without one, trafilatura selects the content of a page. The Markdown is written
here, since that of trafilatura escapes brackets and signs ("\\\\<5 years") that must survive.
"""

import email.message
import re
from collections.abc import Callable
from typing import Any

import lxml.html
from lxml import etree

from data_prep.readers.markup import clean, math
from data_prep.readers.page_encoding import decode_page
from data_prep.readers.rendering import heading, table_rows
from data_prep.readers.superscripts import superscript
from data_prep.readers.word_lists import clean_word, is_word_export
from data_prep.readers.xml_tree import MATHML, Element, tag_of

_SKIPPED = {
    "script", "style", "nav", "noscript", "template", "svg", "button", "iframe", "img", "video",
    "audio", "canvas", "select", "textarea", "input", "object", "head", "dialog", "picture",
}  # fmt: skip
_BLOCKS = {
    "p", "div", "section", "article", "main", "header", "footer", "aside", "ul", "ol", "dl", "dt",
    "dd", "li", "table", "pre", "form", "blockquote", "figure", "figcaption", "address", "details",
    "summary", "fieldset", "hr", "body", "caption", *(f"h{n}" for n in range(1, 7)),
}  # fmt: skip
_PAGE_FURNITURE = _SKIPPED | {"a", "header", "footer", "aside", "form"}
# trafilatura's own names -> HTML; those that depend on attributes: `_html_name`
_HTML_NAMES = {
    "item": "li",
    "row": "tr",
    "cell": "td",
    "quote": "blockquote",
    "lb": "br",
    "ref": "a",
    "graphic": "img",
}

PAGE_TYPES = ("text/html", "application/xhtml+xml")


def content_type(header: str) -> tuple[str, str | None]:
    """Return media type and charset, both in lower case, of a Content-Type header.

    "text/plain" for one that states no type.
    """
    message = email.message.Message()
    message["Content-Type"] = header
    return message.get_content_type(), message.get_content_charset()


def sniffed_type(data: bytes) -> str:
    """Return the media type of an answer that states none, by how it begins; "" if unknown."""
    beginning = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if beginning.startswith(b"%pdf-"):
        return "application/pdf"
    if re.match(
        rb"(<!--.*?-->\s*|<\?xml.*?\?>\s*)*<(!doctype\s+html|html|head|body)\b", beginning, re.S
    ):
        return "text/html"
    if re.match(rb"<\?xml\b|<(urlset|sitemapindex)\b", beginning):
        return "application/xml"
    return ""


def parse(data: bytes, charset: str | None = None) -> Element | None:
    """Return a page's root element; None when there is nothing in it.

    Raises:
        UnknownEncodingError: the bytes are no text.
    """
    text = decode_page(data, charset)
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        root = lxml.html.document_fromstring(text.encode("utf-8", "surrogatepass"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return None
    if not isinstance(root.tag, str):
        return None
    # trafilatura would take their tails along
    etree.strip_elements(root, etree.Comment, etree.ProcessingInstruction, with_tail=False)
    clean_word(root)
    return root


def content_of(root: Element, selector: str = "") -> list[Element]:
    """Return the elements of a page that hold its content.

    Those that the CSS selector names, else what trafilatura finds.
    """
    if selector:
        selected = root.cssselect(selector)  # type: ignore[attr-defined]
        return [
            element
            for element in selected
            if not any(ancestor in selected for ancestor in element.iterancestors())
        ]
    if is_word_export(root):  # nothing surrounds its content
        return list(root.iterfind("body"))
    import trafilatura

    extracted: Any = trafilatura.bare_extraction(
        root,
        include_comments=False,
        include_tables=True,
        include_formatting=True,
        favor_recall=True,
    )
    if extracted is None or extracted.body is None:
        return []
    for element in extracted.body.iter():
        element.tag = _html_name(element)
    return [extracted.body]


def _html_name(element: Element) -> Any:
    """Return the HTML name of an element of trafilatura's tree."""
    tag = element.tag
    rend = element.get("rend") or ""
    if tag == "head":
        return rend if re.fullmatch(r"h[1-6]", rend) else "h2"
    if tag == "hi":
        return {"#sup": "sup", "#sub": "sub"}.get(rend, "span")
    if tag == "list":
        return rend if rend in ("ol", "dl") else "ul"
    if tag == "code":  # a listing stands alone, a word of code in a paragraph
        parent = element.getparent()
        is_listing = parent is None or parent.tag in ("body", "main", "div")
        return "pre" if is_listing else "span"
    if tag == "cell" and element.get("role") == "head":
        return "th"
    return _HTML_NAMES.get(tag, tag)


class HtmlText:
    """Collects the blocks of one page."""

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self._line = ""

    def write(self, element: Element) -> None:
        """Add the blocks of an element."""
        self._block(element)
        self._end()

    def _end(self) -> None:
        """End the current paragraph."""
        text = clean(self._line)
        self._line = ""
        if text:
            self.blocks.append(text)

    def _captured(self, write: Callable[[Element], None], element: Element) -> list[str]:
        """Return the blocks that `write` makes of an element."""
        outer_blocks = self.blocks
        outer_line = self._line
        self.blocks = []
        self._line = ""
        write(element)
        self._end()
        inner_blocks = self.blocks
        self.blocks = outer_blocks
        self._line = outer_line
        return inner_blocks

    def _flow(self, element: Element) -> None:
        self._line += element.text or ""
        for child in element:
            tag = tag_of(child)
            if child.tag is etree.Entity:
                self._line += child.text or ""
            elif tag in _BLOCKS:
                self._end()
                self._block(child)
                self._end()
            elif str(child.tag).startswith(MATHML) or tag == "math":
                self._line += math(child)
            elif tag == "br":
                self._line += " "
            elif tag == "sup":
                raised = self._line_of(child)
                self._line += superscript(raised, self._line, child)
            elif tag and tag not in _SKIPPED:
                self._flow(child)
            self._line += child.tail or ""

    def _line_of(self, element: Element) -> str:
        """Return an element's text on one line."""
        return " ".join(self._captured(self._flow, element))

    def _block(self, element: Element) -> None:
        tag = tag_of(element)
        if tag in ("ul", "ol"):
            self._list(element, tag == "ol")
        elif tag == "table":
            self._table(element)
        elif tag == "pre":
            text = "".join(map(str, element.itertext())).strip("\n")
            if text.strip():
                self.blocks.append(text)
        elif re.fullmatch(r"h[1-6]", tag):
            if text := self._line_of(element):
                self.blocks.append(heading(int(tag[1]), text))
        elif tag == "blockquote":
            self._prefixed(element, "> ", "> ")
        elif tag == "dd":
            self._prefixed(element, "- ", "  ")
        elif tag not in _SKIPPED:
            self._flow(element)

    def _prefixed(self, element: Element, first: str, following: str) -> None:
        """Add the blocks of an element, each with a prefix for its first and its other lines."""
        for block in self._captured(self._flow, element):
            self.blocks.append(first + block.replace("\n", f"\n{following}"))

    def _list(self, element: Element, is_ordered: bool) -> None:
        lines = []
        items = [child for child in element if tag_of(child)]
        for number, item in enumerate(items, 1):
            write = self._flow if tag_of(item) == "li" else self._block
            if blocks := self._captured(write, item):
                mark = f"{number}." if is_ordered else "-"
                text = "\n".join(blocks).replace("\n", "\n  ")
                lines.append(f"{mark} {text}")
        if lines:
            self.blocks.append("\n".join(lines))

    def _table(self, element: Element) -> None:
        for caption in element.iterfind("caption"):
            self.blocks += self._captured(self._flow, caption)
        if next(element.iterdescendants("table"), None) is not None:  # a table for layout
            self._flow_cells(element)
            return
        rows = [self._cells(row) for row in element.iter("tr")]
        if max(map(len, rows), default=0) <= 1:
            self.blocks += [row[0] for row in rows if row and row[0]]
        elif text := table_rows(rows):
            self.blocks.append(text)

    def _cells(self, row: Element) -> list[str]:
        cells = [cell for cell in row if tag_of(cell) in ("td", "th")]
        return [" ".join(self._line_of(cell).split()) for cell in cells]

    def _flow_cells(self, element: Element) -> None:
        for child in element:
            if tag_of(child) in ("td", "th"):
                self._end()
                self._flow(child)
                self._end()
            elif tag_of(child) != "caption":
                self._flow_cells(child)


def letters_of(root: Element) -> int:
    """Return how many letters and digits of a page are outside links, menus and page furniture."""
    count = 0
    pending = [root]
    while pending:
        element = pending.pop()
        count += sum(map(str.isalnum, element.text or ""))
        for child in element:
            count += sum(map(str.isalnum, child.tail or ""))
            if tag_of(child) and tag_of(child) not in _PAGE_FURNITURE:
                pending.append(child)
    return count


def page_text(root: Element, selector: str = "") -> tuple[str, str]:
    """Return title and text of a page, the title first; an empty text when there is no content."""
    name = ""
    if (title_element := next(root.iter("title"), None)) is not None:
        name = " ".join("".join(map(str, title_element.itertext())).split())
    writer = HtmlText()
    for element in content_of(root, selector):
        writer.write(element)
    blocks = writer.blocks
    if not blocks:
        return name, ""
    first = next((number for number, block in enumerate(blocks) if block.startswith("# ")), None)
    title = blocks.pop(first)[2:] if first is not None and first < 3 else name
    return title, "\n\n".join([title, *blocks] if title else blocks)
