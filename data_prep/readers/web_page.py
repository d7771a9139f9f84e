"""Web pages as files."""

from collections.abc import Iterator

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.readers.base import WARNING, SourceReader
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.css_selector import Selector
from data_prep.readers.html_text import letters_of, page_text, parse
from data_prep.readers.license import license_name
from data_prep.readers.page_encoding import UnknownEncodingError
from data_prep.readers.record import Record, RecordRejectedError
from data_prep.readers.xml_tree import LANGUAGE, Element
from galen.recipe import STRICT

_MAX_DAMAGED_FRACTION = 0.001
"""Replacement characters in the text above which a page is quarantined.

One with fewer is read with a warning.
"""

_MIN_EXTRACTED_FRACTION = 0.5
_FEW_EXTRACTED = "pages with less than half of their text extracted"
_MIN_LETTERS = 500
"""Letters and digits of a page from which on the extracted fraction is checked."""


@dataclass(kw_only=True, config=STRICT)
class HtmlOptions(ReaderOptions):
    """Options of web pages."""

    content: Selector = Field(
        default="",
        description=(
            'CSS selector of the part of a page that is content, for example "main article". Empty:'
            " trafilatura finds it."
        ),
    )


class HtmlReader(SourceReader):
    """Yields one document per page that has content; the id is the file's name with a hash of it.

    Metadata besides what all readers give: url (the canonical one, if the page states it).
    """

    name = "html"
    Options = HtmlOptions
    options: HtmlOptions
    endings = (".html", ".htm", ".xhtml", ".html.gz", ".htm.gz")
    many_per_task = True
    libraries = ("trafilatura",)

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the file."""
        return self.file_record(filepath)

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a file."""
        data = record.content
        document = page_document(
            self, data, filepath, self.content_id(filepath, data), self.options.content
        )
        if document is not None:
            yield document


def page_document(
    reader: SourceReader,
    data: bytes,
    filepath: str,
    document_id: str,
    selector: str,
    charset: str | None = None,
    url: str = "",
) -> Document | None:
    """Return a page's document, counted as read; None, counted as dropped, without content."""
    position = f"page {url or document_id}"
    try:
        root = parse(data, charset)
    except UnknownEncodingError as error:
        raise RecordRejectedError("unknown encoding", str(error)) from None
    if root is None:
        reader.stat_update("total", "dropped_empty page")
        return None
    letters = 0 if selector else letters_of(root)
    title, text = page_text(root, selector)
    damaged = text.count("\ufffd")
    if damaged > _MAX_DAMAGED_FRACTION * len(text):
        raise RecordRejectedError(
            "damaged text", f"{damaged:,} replacement characters for what was lost before"
        )
    reader.stat_update("total")
    if not text:
        reader.stat_update("dropped_no content")
        return None
    if damaged:
        detail = f"{damaged:,} replacement characters"
        _warn(reader, filepath, position, "pages with replacement characters", detail)
    extracted = sum(map(str.isalnum, text))
    if letters >= _MIN_LETTERS and extracted < _MIN_EXTRACTED_FRACTION * letters:
        detail = (
            f"{extracted:,} of the {letters:,} letters and digits outside of links and menus are"
            " extracted; options.content can name the content"
        )
        _warn(reader, filepath, position, _FEW_EXTRACTED, detail)
    language = root.get("lang") or root.get(LANGUAGE)
    return reader.document(
        text,
        document_id,
        filepath,
        title=title,
        language=[language] if language else [],
        license=_license_of(root),
        url=url or _canonical_url(root),
    )


def _license_of(root: Element) -> str:
    """Return the name of the license that a page links to."""
    links = [
        link for link in root.iter("link", "a") if "license" in (link.get("rel") or "").split()
    ]
    return license_name(*(link.get("href") for link in links))


def _canonical_url(root: Element) -> str | None:
    for link in root.iter("link"):
        if link.get("rel") == "canonical":
            return link.get("href")
    return None


def _warn(reader: SourceReader, filepath: str, position: str, reason: str, detail: str) -> None:
    """Count a page that is read with defects, and report it among the unreadable ones."""
    reader.stat_update(f"{WARNING}{reason}")
    reader.report(filepath, position, reason, detail)
