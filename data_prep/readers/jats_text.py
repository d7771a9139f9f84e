"""The text of a JATS article (https://jats.nlm.nih.gov/) as Markdown.

Prose is written in document order. A figure, table, box or footnote inside a paragraph is written
behind the paragraph, so that sentences stay complete; one that is apart from the text
(`floats-group`, `back/fn-group`) behind the first paragraph that refers to it. An unknown element
is written with all its text.
"""

import html
import re
from collections.abc import Callable, Iterable
from typing import Any

from lxml import etree

from data_prep.readers.jats_formulas import image_text, is_formula, mathml_text, tex_text
from data_prep.readers.jats_references import ReferenceTargets
from data_prep.readers.markup import clean
from data_prep.readers.rendering import (
    MarkupRenderer,
    MarkupTableOptions,
    heading,
    table_rows,
    tidy,
)
from data_prep.readers.superscripts import superscript_text
from data_prep.readers.xml_tree import HREF, Element, inline_text, tag_of

_FLOATS = {
    "fig", "fig-group", "table-wrap", "table-wrap-group", "boxed-text", "fn", "fn-group",
    "supplementary-material", "chem-struct-wrap",
}  # fmt: skip
_BLOCKS = {
    "p", "sec", "list", "def-list", "disp-quote", "disp-formula", "disp-formula-group", "preformat",
    "code", "verse-group", "speech", "statement", "array", "table", "app", "glossary", "notes",
    "question", "answer", "question-wrap",
}  # fmt: skip
_SECTIONS = ("sec", "app", "glossary", "notes", "ack")
_BOXES = (
    "boxed-text",
    "statement",
    "fn",
    "supplementary-material",
    "fig-group",
    "table-wrap-group",
)
_SKIPPED = {
    "graphic", "inline-graphic", "media", "object-id", "alt-text", "long-desc", "permissions",
    "private-char", "ref-list", "sec-meta", "kwd-group", "processing-meta", "index-term",
}  # fmt: skip
_CELLS = {"td", "th", "entry"}
"""Those of XHTML and of the OASIS exchange model, whose rows are `row`."""

_FOOTNOTE_REFERENCES = {"fn", "table-fn", "author-notes"}
"""Types of an `xref` whose printed mark is kept in brackets."""

_PLACEHOLDER = re.compile("\ue001(\\d+)\ue002")
"""In the text of a paragraph: the number of the blocks inside it that come here."""


class JatsText:
    """Renders the parts of one article."""

    def __init__(self, article: Element, options: MarkupTableOptions) -> None:
        self.options = options
        self.renderer = MarkupRenderer(options)
        self.blocks: list[str] = []
        self._targets = ReferenceTargets(article)
        self._inner_blocks: list[list[str]] = []
        """Blocks inside the current paragraph, for its placeholders."""
        self._deferred: list[Element] = []
        """Figures and tables to be written behind the current paragraph."""

    def text_of(self, element: Element | None) -> str:
        """Return an element's text on one line, as for titles."""
        return "" if element is None else self._paragraph_text(element)

    def abstract(self, element: Element) -> None:
        """Write an abstract under its own title or "Abstract"."""
        self._add(heading(1, self.text_of(element.find("title")) or "Abstract"))
        self._children(element, 2)

    def body(self, element: Element) -> None:
        """Write the body."""
        self._children(element, 1)

    def rest(self, article: Element) -> None:
        """Write appendices and glossaries, and the floats that nothing refers to."""
        for appendix in [*article.iterfind("back//app"), *article.iterfind("back/glossary")]:
            self._block(appendix, 1)
        for element in article.iterfind("floats-group/*"):
            id = element.get("id")
            if not id or self._targets.floats.pop(str(id), None) is not None:
                self._block(element, 1)

    # blocks

    def _add(self, text: str) -> None:
        if text:
            self.blocks.append(text)

    def _children(
        self, element: Element, depth: int, without: tuple[str, ...] = ("title", "label")
    ) -> None:
        for child in element:
            if tag_of(child) and tag_of(child) not in without:
                self._block(child, depth)

    def _each(self, elements: Iterable[Element], depth: int) -> None:
        for element in elements:
            self._children(element, depth)

    def _captured(self, write: Callable[..., None], *arguments: Any) -> list[str]:
        """Return the blocks that `write` adds."""
        outer = self.blocks
        self.blocks = []
        write(*arguments)
        inner = self.blocks
        self.blocks = outer
        return inner

    def _block(self, element: Element, depth: int) -> None:
        """Write one block-level element."""
        tag = tag_of(element)
        if tag in _SKIPPED:
            return
        if tag == "supplementary-material" and self.options.figures == "drop":
            return
        if self._leaf(element, tag):
            return
        if tag == "list":
            self._list(element, depth)
        elif tag == "def-list":
            self._definitions(element, depth)
        elif tag in _SECTIONS:
            self._add(heading(depth, self._title(element)))
            self._children(element, depth + 1)
        elif tag in _BOXES:
            self._box(element, depth)
        elif tag == "p" or not _holds_blocks(element) or _has_own_text(element):
            self._paragraph(element, depth)
        else:
            self._children(element, depth, without=())

    def _leaf(self, element: Element, tag: str) -> bool:
        """Write an element whose children are no blocks; return whether it is one."""
        if tag in ("fig", "table-wrap"):
            self._float(element)
        elif tag in ("disp-formula", "chem-struct-wrap"):
            self._display(element)
        elif tag == "table":
            self._add(self._rows(element) if self.options.table_bodies else "")
        elif tag in ("preformat", "code"):
            text = "".join(map(str, element.itertext()))
            self._add(html.unescape(text).strip("\n"))
        else:
            return False
        return True

    def _title(self, element: Element) -> str:
        parts = (self.text_of(element.find("label")), self.text_of(element.find("title")))
        return " ".join(part for part in parts if part)

    def _box(self, element: Element, depth: int) -> None:
        """Write a box or footnote.

        Its label leads its text, without a header that would cut the section in two.
        """
        tag = tag_of(element)
        label = self._title(element)
        caption = element.find("caption")
        title = "" if caption is None else self.text_of(caption.find("title"))
        blocks = self._captured(self._box_content, element, depth + 1)
        if tag in ("fn", "supplementary-material"):
            lead = f"[{label}]" if tag == "fn" and label.isalnum() else label
            if title:
                blocks.insert(0, title)
            first = blocks[0] if blocks else ""
            self._add(f"{lead} {first}".strip() if blocks else lead)
            self.blocks.extend(blocks[1:])
            return
        names = [name.rstrip(".") for name in (label, title) if name]
        if names:
            self._add(f"**{'. '.join(names)}**")
        self.blocks.extend(blocks)

    def _box_content(self, element: Element, depth: int) -> None:
        caption = element.find("caption")
        for child in element:
            if child is caption:
                self._children(child, depth)
            elif tag_of(child) not in ("", "label", "title"):
                self._block(child, depth)

    def _float(self, element: Element) -> None:
        body = ""
        if self.options.table_bodies:
            footnotes = self._captured(self._each, element.iterfind("table-wrap-foot"), 1)
            tables = [self._rows(table) for table in element.iter("table")]
            body = "\n".join([*tables, *footnotes])
        token = "table" if tag_of(element) == "table-wrap" else "fig"
        label = self.text_of(element.find("label"))
        self._add(self.renderer.figure_or_table(token, label, self._caption(element), body))

    def _caption(self, element: Element) -> str:
        """Return title and paragraphs of a caption, and other prose of the float, on one line."""
        parts: list[str] = []
        for child in element:
            tag = tag_of(child)
            if tag == "caption":
                parts.append(self.text_of(child.find("title")))
                parts += self._captured(self._children, child, 1)
            elif tag in ("p", "attrib"):
                parts.append(self.text_of(child))
            elif tag in ("fig", "disp-formula", "list", "def-list"):
                parts += self._captured(self._block, child, 1)
        return " ".join(" ".join(part.split()) for part in parts if part)

    def _list(self, element: Element, depth: int) -> None:
        self._add(self._title(element))
        list_type = element.get("list-type") or ""
        is_ordered = list_type.startswith(("order", "alpha", "roman"))
        lines = []
        for number, item in enumerate(element.iterfind("list-item"), 1):
            label = self.text_of(item.find("label"))
            if not label or label in "•-–*·":
                label = f"{number}." if is_ordered else "-"
            lines.append(f"{label} {_indented(self._captured(self._children, item, depth))}")
        self._add("\n".join(lines))

    def _definitions(self, element: Element, depth: int) -> None:
        self._add(self._title(element))
        lines = []
        for item in element:
            if tag_of(item) == "def-item":
                terms = [self.text_of(term) for term in item.iterfind("term")]
                blocks = self._captured(self._each, item.iterfind("def"), depth)
                lines.append(f"- {', '.join(terms)}: {_indented(blocks)}")
            elif tag_of(item) == "def-list":
                lines += self._captured(self._definitions, item, depth)
        self._add("\n".join(lines))

    def _rows(self, table: Element) -> str:
        rows = [self._cells(row) for row in table.iter("tr", "row")]
        header_rows = sum(len(head) for head in table.iter("thead"))
        return table_rows(rows, header_rows or 1)

    def _cells(self, row: Element) -> list[str]:
        return [self._paragraph_text(cell) for cell in row if tag_of(cell) in _CELLS]

    # paragraphs

    def _paragraph(self, element: Element, depth: int) -> None:
        """Write a paragraph with the blocks inside it, then its figures and tables.

        They are in it, or it is the first to refer to them.
        """
        outer_blocks = self._inner_blocks
        outer_deferred = self._deferred
        self._inner_blocks = []
        self._deferred = []
        text = inline_text(element, self._inline)
        inner_blocks = self._inner_blocks
        deferred = self._deferred
        self._inner_blocks = outer_blocks
        self._deferred = outer_deferred
        for number, part in enumerate(_PLACEHOLDER.split(text)):
            if number % 2:
                self.blocks.extend(inner_blocks[int(part)])
            else:
                self._add(tidy(clean(part)).strip())
        deferred += self._targets.take_floats(element)
        for float_element in deferred:
            self._block(float_element, depth)

    def _paragraph_text(self, element: Element) -> str:
        return " ".join(" ".join(self._captured(self._paragraph, element, 1)).split())

    def _inline(self, child: Element, before: str) -> str:
        """Return the inline text of one child that follows the text `before`."""
        if child.tag is etree.Entity:
            return html.unescape(child.text or "")
        tag = tag_of(child)
        if not tag or tag in _SKIPPED:
            return ""
        if is_formula(child):
            return self._formula(child)
        if tag in _FLOATS:
            self._deferred.append(child)
            return ""
        if tag in _BLOCKS:
            self._inner_blocks.append(self._captured(self._block, child, 6))
            return f"\ue001{len(self._inner_blocks) - 1}\ue002"
        if tag == "xref":
            return self._xref(child)
        if tag == "sup":
            return self._sup(child, before)
        if tag == "break":
            return " "
        text = inline_text(child, self._inline, before)
        if not text.strip() and tag in ("ext-link", "uri"):
            return child.get(HREF) or ""
        return text

    def _sup(self, element: Element, before: str) -> str:
        """Return a superscript, which may be the mark of a citation or footnote."""
        reference_types = {xref.get("ref-type") for xref in element.iter("xref")}
        if not reference_types & {"bibr", *_FOOTNOTE_REFERENCES}:
            return superscript_text(element, self._inline, _is_plain_sup, before)
        mark = inline_text(element, self._inline)
        is_printed = self.options.citations == "marker" or "bibr" not in reference_types
        if is_printed and _needs_brackets(mark):
            mark = f"[{mark.strip()}]"  # "disease12" would be another word
        touches_word = before[-1:].strip() != "" and before[-1:] not in "(["
        return f" {mark}" if touches_word else mark

    def _xref(self, element: Element) -> str:
        marker = inline_text(element, self._inline)
        ids = (element.get("rid") or "").split()
        works = self._targets.works_of(ids)
        reference_type = element.get("ref-type")
        if reference_type == "bibr" or (reference_type is None and works):
            return self.renderer.citation(marker, works)
        if reference_type in _FOOTNOTE_REFERENCES and element.find("sup") is not None:
            if marker.strip().isalnum():
                return f" [{marker.strip()}]"
        elif reference_type in ("fig", "table") and ids and ids[0] in self._targets.figures:
            return self.renderer.reference(clean(marker), self._targets.caption_of(ids[0]))
        return marker

    # formulas

    def _formula(self, element: Element) -> str:
        """Return a formula with its number.

        As TeX where it has some, else MathML as plain characters, else its text.
        """
        label = self.text_of(element.find("label"))
        formula = tex_text(element)
        if tag_of(element) == "tex-math":
            return formula  # its text without a formula is the document around one
        formula = (
            formula
            or mathml_text(element)
            or self._text_without_label(element)
            or image_text(element)
        )
        return " ".join(part for part in (formula, label) if part)

    def _display(self, element: Element) -> None:
        """Write a formula on a line of its own; of one that is only an image its number."""
        text = self._formula(element)
        is_number = text == self.text_of(element.find("label"))
        self._add(text if is_number else self.renderer.formula(text))

    def _text_without_label(self, element: Element) -> str:
        text = element.text or ""
        for child in element:
            if tag_of(child) != "label":
                text += self._inline(child, text)
            text += child.tail or ""
        return clean(text)


def _holds_blocks(element: Element) -> bool:
    return any(tag_of(child) in _BLOCKS | _FLOATS for child in element)


def _has_own_text(element: Element) -> bool:
    """Return whether an element has text beside that of its children, as mixed content has."""
    texts = [element.text, *(child.tail for child in element)]
    return any(text and text.strip() for text in texts)


def _indented(blocks: Iterable[str]) -> str:
    """Return the blocks of a list item as lines below its first one."""
    return "\n".join(blocks).replace("\n", "\n  ")


def _needs_brackets(mark: str) -> bool:
    """Return whether a printed mark has letters or digits and no brackets."""
    return any(map(str.isalnum, mark)) and mark.strip()[0] not in "[("


def _is_plain_sup(element: Element) -> bool:
    """Return whether an element is a superscript that cites nothing."""
    return tag_of(element) == "sup" and next(element.iter("xref"), None) is None
