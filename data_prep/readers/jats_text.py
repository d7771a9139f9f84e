"""The text of a JATS article (https://jats.nlm.nih.gov/) as Markdown.

The prose comes in its order. A figure, table, box or footnote inside a paragraph comes behind it,
so that sentences stay complete; one that is apart from the text (`floats-group`, `back/fn-group`)
behind the first paragraph that refers to it. An element that is not known is written with all its
text.
"""

import html
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lxml import etree

from data_prep.readers.markup import clean, math
from data_prep.readers.rendering import (
    MarkupRenderer,
    MarkupTableOptions,
    heading,
    table_rows,
    tidy,
)
from data_prep.readers.superscripts import superscript_text
from data_prep.readers.tex import tex_formula
from data_prep.readers.xml_tree import HREF, MATHML, Element, inline_text, tag_of

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
_LEFT_OUT = {
    "graphic", "inline-graphic", "media", "object-id", "alt-text", "long-desc", "permissions",
    "private-char", "ref-list", "sec-meta", "kwd-group", "processing-meta", "index-term",
}  # fmt: skip
_CELLS = {"td", "th", "entry"}
"""Those of XHTML and of the OASIS exchange model, whose rows are `row`."""

_PRINTED_NOTES = {"fn", "table-fn", "author-notes"}
_PLACE = re.compile("\ue001(\\d+)\ue002")


class JatsText:
    """Renders the parts of one article."""

    def __init__(self, article: Element, options: MarkupTableOptions) -> None:
        self.options = options
        self.renderer = MarkupRenderer(options)
        self.blocks: list[str] = []
        self._flow: list[list[str]] = []  # blocks inside the present paragraph
        self._behind: list[Element] = []  # figures and tables to come behind it
        self._works = {
            str(ref.get("id")): _work(ref) for ref in article.iterfind(".//ref-list//ref")
        }
        apart = [*article.iterfind("floats-group/*"), *article.iterfind("back//fn-group/fn")]
        self._apart = {str(element.get("id")): element for element in apart if element.get("id")}
        self._figures = {
            str(element.get("id")): element
            for element in article.iter("fig", "table-wrap")
            if element.get("id")
        }

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
        """Write appendices and glossaries, and figures apart that nothing refers to."""
        for part in [*article.iterfind("back//app"), *article.iterfind("back/glossary")]:
            self._block(part, 1)
        for element in article.iterfind("floats-group/*"):
            if self._apart.pop(str(element.get("id")), None) is not None or not element.get("id"):
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
        if tag in _LEFT_OUT:
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
            self._boxed(element, depth)
        elif tag == "p" or not any(tag_of(child) in _BLOCKS | _FLOATS for child in element):
            self._paragraph(element, depth)
        elif (element.text or "").strip() or any((child.tail or "").strip() for child in element):
            self._paragraph(element, depth)  # mixed content
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
            text = "".join(str(part) for part in element.itertext())
            self._add(html.unescape(text).strip("\n"))
        else:
            return False
        return True

    def _title(self, element: Element) -> str:
        parts = (self.text_of(element.find("label")), self.text_of(element.find("title")))
        return " ".join(part for part in parts if part)

    def _boxed(self, element: Element, depth: int) -> None:
        """Write a box or note.

        Its label leads its text, without a header that would cut the section in two.
        """
        tag = tag_of(element)
        caption = element.find("caption")
        label = self._title(element)
        title = "" if caption is None else self.text_of(caption.find("title"))

        def inner() -> None:
            for child in element:
                if child is caption:
                    self._children(child, depth + 1)
                elif tag_of(child) not in ("", "label", "title"):
                    self._block(child, depth + 1)

        if tag in ("fn", "supplementary-material"):
            blocks = [title] * bool(title) + self._captured(inner)
            lead = f"[{label}]" if tag == "fn" and label.isalnum() else label
            self._add(f"{lead} {blocks[0]}".strip() if blocks else lead)
            self.blocks.extend(blocks[1:])
        else:
            self._add(
                f"**{'. '.join(part.rstrip('.') for part in (label, title) if part)}**"
                if label or title
                else ""
            )
            inner()

    def _float(self, element: Element) -> None:
        kind = "table" if tag_of(element) == "table-wrap" else "fig"
        body = ""
        if self.options.table_bodies:
            notes = self._captured(self._each, element.iterfind("table-wrap-foot"), 1)
            body = "\n".join([*(self._rows(table) for table in element.iter("table")), *notes])
        label = self.text_of(element.find("label"))
        self._add(self.renderer.figure_or_table(kind, label, self._caption(element), body))

    def _caption(self, element: Element) -> str:
        """Return title and paragraphs of a caption, and other prose of the float, on one line."""
        parts: list[str] = []
        for child in element:
            tag = tag_of(child)
            if tag == "caption":
                parts += [self.text_of(child.find("title"))]
                parts += self._captured(self._children, child, 1)
            elif tag in ("p", "attrib"):
                parts.append(self.text_of(child))
            elif tag in ("fig", "disp-formula", "list", "def-list"):
                parts += self._captured(self._block, child, 1)
        return " ".join(" ".join(part.split()) for part in parts if part)

    def _list(self, element: Element, depth: int) -> None:
        self._add(self._title(element))
        ordered = (element.get("list-type") or "").startswith(("order", "alpha", "roman"))
        lines = []
        for number, item in enumerate(element.iterfind("list-item"), 1):
            label = self.text_of(item.find("label"))
            blocks = self._captured(self._children, item, depth)
            mark = (
                f"{label} "
                if label and label not in "•-–*·"
                else f"{number}. "
                if ordered
                else "- "
            )
            lines.append(mark + "\n".join(blocks).replace("\n", "\n  "))
        self._add("\n".join(lines))

    def _definitions(self, element: Element, depth: int) -> None:
        self._add(self._title(element))
        lines = []
        for item in element:
            if tag_of(item) == "def-item":
                terms = [self.text_of(term) for term in item.iterfind("term")]
                blocks = self._captured(self._each, item.iterfind("def"), depth)
                lines.append(f"- {', '.join(terms)}: " + "\n".join(blocks).replace("\n", "\n  "))
            elif tag_of(item) == "def-list":
                lines += self._captured(self._definitions, item, depth)
        self._add("\n".join(lines))

    def _rows(self, table: Element) -> str:
        rows = [
            [self._paragraph_text(cell) for cell in row if tag_of(cell) in _CELLS]
            for row in table.iter("tr", "row")
        ]
        return table_rows(rows, sum(1 for head in table.iter("thead") for _ in head) or 1)

    # paragraphs

    def _paragraph(self, element: Element, depth: int) -> None:
        """Write a paragraph with the blocks inside it, then its figures and tables.

        They are in it, or it is the first to refer to them.
        """
        outer = self._flow, self._behind
        self._flow = []
        self._behind = []
        text = inline_text(element, self._one)
        flow = self._flow
        behind = self._behind
        self._flow, self._behind = outer
        for number, part in enumerate(_PLACE.split(text)):
            if number % 2:
                self.blocks.extend(flow[int(part)])
            else:
                self._add(tidy(clean(part)).strip())
        for name in (
            name for xref in element.iter("xref") for name in (xref.get("rid") or "").split()
        ):
            if (apart := self._apart.pop(name, None)) is not None:
                behind.append(apart)
        for element in behind:
            self._block(element, depth)

    def _paragraph_text(self, element: Element) -> str:
        return " ".join(" ".join(self._captured(self._paragraph, element, 1)).split())

    def _one(self, child: Element, before: str) -> str:
        """Return the inline text of one child that follows the text `before`."""
        if child.tag is etree.Entity:
            return html.unescape(child.text or "")
        tag = tag_of(child)
        if not tag or tag in _LEFT_OUT:
            return ""
        if str(child.tag).startswith(MATHML) or tag in (
            "inline-formula",
            "tex-math",
            "alternatives",
            "inline-alternatives",
            "chem-struct",
        ):
            return self._formula(child)
        if tag in _FLOATS:
            self._behind.append(child)
            return ""
        if tag in _BLOCKS:
            self._flow.append(self._captured(self._block, child, 6))
            return f"\ue001{len(self._flow) - 1}\ue002"
        if tag == "xref":
            return self._xref(child)
        if tag == "sup":
            return self._sup(child, before)
        if tag == "break":
            return " "
        inner = inline_text(child, self._one, before)
        return inner if inner.strip() or tag not in ("ext-link", "uri") else child.get(HREF) or ""

    def _sup(self, element: Element, before: str) -> str:
        kinds = {xref.get("ref-type") for xref in element.iter("xref")}
        if not kinds & ({"bibr"} | _PRINTED_NOTES):
            return superscript_text(element, self._one, _is_plain_sup, before)
        raised = inline_text(element, self._one)
        bare = self.options.citations == "marker" or "bibr" not in kinds
        if (
            bare
            and raised.strip()
            and any(character.isalnum() for character in raised)
            and raised.strip()[0] not in "[("
        ):
            raised = f"[{raised.strip()}]"  # "disease12" would be another word
        return f" {raised}" if before[-1:].strip() and before[-1:] not in "([" else raised

    def _xref(self, element: Element) -> str:
        marker = inline_text(element, self._one)
        names = (element.get("rid") or "").split()
        kind = element.get("ref-type")
        if kind == "bibr" or (kind is None and any(name in self._works for name in names)):
            return self.renderer.citation(
                marker, [self._works[name] for name in names if name in self._works]
            )
        if kind in _PRINTED_NOTES and element.find("sup") is not None and marker.strip().isalnum():
            return f" [{marker.strip()}]"
        if kind in ("fig", "table") and names and names[0] in self._figures:
            caption = self._figures[names[0]].find("caption")
            said = (
                ""
                if caption is None
                else " ".join(clean("".join(map(str, part.itertext()))) for part in caption)
            )
            return self.renderer.reference(clean(marker), said)
        return marker

    # formulas

    def _formula(self, element: Element) -> str:
        """Return TeX where there is some, else MathML as plain characters, else the text.

        With the formula's number.
        """
        label = self.text_of(element.find("label"))
        formula = " ".join(filter(None, map(tex_formula, element.iter("tex-math"))))
        if tag_of(element) == "tex-math":
            return formula  # its text without a formula is the document around one
        if not formula:
            formula = self._mathml(element)
        return " ".join(
            filter(
                None, (formula or self._text_without_label(element) or _alternative(element), label)
            )
        )

    def _display(self, element: Element) -> None:
        """Write a formula on a line of its own; of one that is only an image its number."""
        text = self._formula(element)
        is_number = text == self.text_of(element.find("label"))
        self._add(text if is_number else self.renderer.formula(text))

    def _mathml(self, element: Element) -> str:
        """Return an element's first MathML formula as plain characters, with the text around it.

        "" without one.
        """
        formula = (
            element
            if str(element.tag).startswith(MATHML)
            else next(iter(element.iter(f"{MATHML}math")), None)
        )
        if formula is None or not (text := math(formula).strip()):
            return ""
        before, behind = _text_around(element, formula)
        return clean(f"{before} {text} {behind}")

    def _text_without_label(self, element: Element) -> str:
        text = element.text or ""
        for child in element:
            text += ("" if tag_of(child) == "label" else self._one(child, text)) + (
                child.tail or ""
            )
        return clean(text)


def _alternative(element: Element) -> str:
    """Return what is written for readers who do not see an image."""
    return " ".join((element.findtext(".//alt-text") or "").split())


def _is_plain_sup(element: Element) -> bool:
    """Say whether an element is a superscript that cites nothing."""
    return tag_of(element) == "sup" and next(element.iter("xref"), None) is None


def _text_around(element: Element, formula: Element) -> tuple[str, str]:
    """Return the text of a formula element before and behind its MathML child."""
    if formula.getparent() is not element:
        return "", ""
    before = [element.text or ""] + [
        child.tail or "" for child in formula.itersiblings(preceding=True)
    ]
    behind = [formula.tail or ""] + [child.tail or "" for child in formula.itersiblings()]
    return " ".join(before), " ".join(behind)


def _work(ref: Element) -> tuple[str, str]:
    """Return title and first author's last name of an entry of the bibliography."""
    title = (
        next(_texts(ref, "article-title"), "")
        or next(_texts(ref, "chapter-title"), "")
        or next(_texts(ref, "source"), "")
    )
    name = next(_texts(ref, "surname"), "") or next(_texts(ref, "collab"), "")
    if not title:  # not divided into parts
        citation = next(
            iter(ref.iter("mixed-citation", "citation", "element-citation", "nlm-citation")), None
        )
        title = "" if citation is None else clean(" ".join(map(str, citation.itertext())))
        return title, ""
    return title.rstrip("."), name


def _texts(element: Element, tag: str) -> Iterator[str]:
    for found in element.iter(tag):
        text = clean("".join(map(str, found.itertext())))
        if text:
            yield text
