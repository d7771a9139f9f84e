"""TEI as GROBID makes it from PDF, to Markdown: title, abstract, body.

https://grobid.readthedocs.io/en/latest/TEI-encoding-of-results/
"""

import re
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from lxml import etree

from data_prep.readers.base import SAMPLE_BYTES, SourceReader
from data_prep.readers.license import license_name
from data_prep.readers.markup import clean
from data_prep.readers.record import Record, RecordRejectedError, Rejection
from data_prep.readers.rendering import (
    MarkupRenderer,
    MarkupTableOptions,
    heading,
    table_rows,
    tidy,
)
from data_prep.readers.superscripts import superscript_text
from data_prep.readers.xml_tree import (
    LANGUAGE,
    Element,
    inline_text,
    parse_xml,
    strip_namespaces,
    tag_of,
)
from data_prep.text.words import UNSPACED_RANGES

_APART = {
    "s",
    "p",
    "div",
    "ab",
    "head",
    "item",
    "label",
    "list",
    "note",
    "row",
    "cell",
    "quote",
    "l",
    "lg",
    "figDesc",
}
"""Elements whose text is no part of the word before or behind them, also where they touch."""

_WIDE = re.compile(f"[{UNSPACED_RANGES}\u3000-\u303f\uff00-\uffef]")
"""Characters of scripts that put no space between sentences."""

_ID = "{http://www.w3.org/XML/1998/namespace}id"


class TeiReader(SourceReader):
    """Yields one document per `TEI` element: a file as a rule, several in a `teiCorpus`.

    A broken file is quarantined.

    The id is "doi:<DOI>", else the file's name with a hash. Metadata besides what all readers give:
    doi, full_text.
    """

    name = "tei"
    Options = MarkupTableOptions
    options: MarkupTableOptions
    endings = (".tei", ".xml", ".xml.gz")
    many_per_task = True

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the file."""
        return self.file_record(filepath)

    def parts(self, record: Record, filepath: str) -> Iterator[Record]:
        """Yield the documents of a file: one as a rule, several where the root is a corpus."""
        try:
            root = parse_xml(record.content)
        except etree.XMLSyntaxError as error:
            record.position = f"line {error.lineno}"
            raise RecordRejectedError("broken XML", error.msg) from None
        strip_namespaces(root)
        if tag_of(root) == "TEI":
            yield Record(record.position, (root, record.content), record.sample)
            return
        if tag_of(root) != "teiCorpus" or root.find(".//TEI") is None:
            raise RecordRejectedError(
                "not TEI",
                f"the root element is <{tag_of(root)}>, not <TEI> or a <teiCorpus> of them",
            )
        pending = [*reversed(root)]
        while pending:
            element = pending.pop()
            tag = tag_of(element)
            position = f"line {element.sourceline}"
            if tag == "TEI":
                data = etree.tostring(element, encoding="utf-8", with_tail=False)
                yield Record(position, (element, data), data[:SAMPLE_BYTES])
            elif tag == "teiCorpus":
                pending.extend(reversed(element))
            elif tag and tag != "teiHeader":
                rejection = Rejection("not TEI", f"<{tag}> in <teiCorpus> is no <TEI>")
                yield Record(position, sample=f"<{tag}>", rejection=rejection)

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a `TEI` element."""
        root, data = record.content
        document = self._document(root, data, filepath)
        self.stat_update("total")
        yield document

    def _document(self, root: Element, data: bytes, filepath: str) -> Document:
        text = TeiText(root, self.options)
        metadata = _metadata(root)
        metadata["title"] = text.line(root.find("teiHeader/fileDesc/titleStmt/title"))
        abstract = root.find("teiHeader/profileDesc/abstract")
        if abstract is not None and "".join(map(str, abstract.itertext())).strip():
            text.blocks.append(heading(1, "Abstract"))
            text.write(abstract, 1)
        before = len(text.blocks)
        for part in (root.find("text/body"), *root.iterfind("text/back/div[@type='annex']")):
            if part is not None:
                text.write(part, 0)
        metadata["full_text"] = len(text.blocks) > before
        written = "\n\n".join(block for block in [metadata["title"], *text.blocks] if block)
        document_id = (
            f"doi:{metadata['doi']}" if metadata["doi"] else self.content_id(filepath, data)
        )
        return self.document(written, document_id, filepath, **metadata)


class TeiText:
    """Collects the blocks of one document."""

    def __init__(self, root: Element, options: MarkupTableOptions) -> None:
        self.renderer = MarkupRenderer(options)
        self.table_bodies = options.table_bodies
        self.blocks: list[str] = []
        self.works: dict[str, tuple[str, str]] = {}
        self.captions: dict[str, str] = {}  # a caption may refer to another figure
        self.works = {
            str(entry.get(_ID)): self._work(entry)
            for entry in root.iter("biblStruct")
            if entry.get(_ID)
        }
        self.captions = {
            str(figure.get(_ID)): self._caption(figure)
            for figure in root.iter("figure")
            if figure.get(_ID)
        }

    def _caption(self, figure: Element) -> str:
        return self.line(figure.find("figDesc")) or self.line(figure.find("head"))

    def line(self, element: Element | None) -> str:
        """Return an element's text on one line."""
        return "" if element is None else tidy(clean(inline_text(element, self._inline)))

    def write(self, element: Element, depth: int) -> None:
        """Add the blocks of an element's children; `depth` counts the divisions around them."""
        self._add(clean(element.text or ""))
        for child in element:
            self._block(child, depth)
            self._add(clean(child.tail or ""))

    def _block(self, element: Element, depth: int) -> None:
        tag = tag_of(element)
        if tag == "div":
            self.write(element, depth + 1)
        elif tag == "head":
            self._add(self._head(element, depth))
        elif tag == "figure":
            self._figure(element)
        elif tag == "formula":
            self._add(self.renderer.formula(self.line(element)))
        elif tag == "list":
            self._add(self.line(element.find("head")))
            self._add("\n".join(f"- {self.line(item)}" for item in element.iterfind("item")))
        elif tag and tag not in ("graphic", "listBibl"):
            self._paragraph(element, depth)

    def _add(self, text: str) -> None:
        if text:
            self.blocks.append(text)

    def _head(self, element: Element, depth: int) -> str:
        """Return a header, whose printed number gives its depth.

        GROBID's divisions are not nested.
        """
        number = (element.get("n") or "").strip().rstrip(".")
        name = self.line(element)
        if number and number[0].isdigit():
            depth = max(depth, number.count(".") + 1)
        return heading(depth, f"{number} {name}".strip())

    def _paragraph(self, element: Element, depth: int) -> None:
        """Add a paragraph; formulas, lists and figures in it go on their own lines, in order."""
        text = element.text or ""
        for child in element:
            if tag_of(child) in ("formula", "list", "figure"):
                self._add(tidy(clean(text)))
                self._block(child, depth)
                text = child.tail or ""
            else:
                text += self._inline(child, text) + (child.tail or "")
        self._add(tidy(clean(text)))

    def _figure(self, element: Element) -> None:
        is_table = element.get("type") == "table"
        head = self.line(element.find("head"))
        label = self.line(element.find("label"))
        description = self.line(element.find("figDesc"))
        if label and head.rstrip(" .:").endswith(label):  # "Table 2" and "2"
            label = head
            head = ""
        elif label:
            label = f"{'Table' if is_table else 'Figure'} {label}"
        if head == description:
            head = ""
        caption = " ".join(part for part in (head, description) if part)
        body = ""
        if is_table and self.table_bodies:
            body = table_rows([self._cells(row) for row in element.iterfind("table/row")])
        token = "table" if is_table else "fig"
        self._add(self.renderer.figure_or_table(token, label, caption, body))

    def _cells(self, row: Element) -> list[str]:
        return [self.line(cell) for cell in row.iterfind("cell")]

    def _inline(self, child: Element, before: str) -> str:
        tag = tag_of(child)
        if not tag or tag == "graphic":
            return ""
        if tag == "lb":
            return "" if child.get("break") == "no" else " "
        if _is_raised(child):
            return superscript_text(child, self._inline, _is_raised, before)
        inner = inline_text(child, self._inline, before)
        if tag in _APART:
            return _apart(inner, before, child.tail or "")
        if tag == "ref":
            target = (child.get("target") or "").removeprefix("#")
            if child.get("type") == "bibr":
                works = [self.works[target]] if target in self.works else []
                return self.renderer.citation(inner, works)
            if child.get("type") in ("figure", "table"):
                return self.renderer.reference(inner, self.captions.get(target, ""))
        return inner

    def _work(self, entry: Element) -> tuple[str, str]:
        title = entry.find("analytic/title")
        if title is None or not self.line(title):
            title = entry.find("monogr/title")
        name = next((surname.text or "" for surname in entry.iter("surname")), "")
        return self.line(title), " ".join(name.split())


def _is_raised(element: Element) -> bool:
    return tag_of(element) == "hi" and (element.get("rend") or "").lower() in (
        "superscript",
        "sup",
        "super",
    )


def _apart(inner: str, before: str, behind: str) -> str:
    """Return a text with a space on each side where it touches a word of a script with spaces."""
    if before[-1:] not in ("(", "[", "{") and _touch(before, inner):
        inner = f" {inner}"
    if behind[:1].isalnum() and _touch(inner, behind):
        inner += " "
    return inner


def _touch(left: str, right: str) -> bool:
    """Return whether two texts touch at characters of scripts with spaces between words."""
    last = left[-1:]
    first = right[:1]
    if not last.strip() or not first.strip():
        return False
    return not _WIDE.match(last) and not _WIDE.match(first)


def _metadata(root: Element) -> dict[str, Any]:
    license = root.find("teiHeader/fileDesc/publicationStmt/availability/licence")
    name = ""
    if license is not None:
        name = license_name(license.get("target"), " ".join(map(str, license.itertext())))
    languages = [part.get(LANGUAGE) for tag in ("teiHeader", "text") for part in root.iterfind(tag)]
    dates = [date.get("when") for date in root.iterfind("teiHeader//date")]
    return {
        "doi": (root.findtext("teiHeader//idno[@type='DOI']") or "").strip(),
        "date": min((date for date in dates if date), default=None),
        "language": [language for language in languages if language][:1],
        "license": name,
    }
