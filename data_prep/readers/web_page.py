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
from data_prep.readers.xml_tree import LANGUAGE
from galen.recipe import STRICT

_DAMAGED_SHARE = 0.001
"""Replacement characters in the text above which a page is quarantined.

One with fewer is kept and named.
"""

_KEPT_SHARE = 0.5
_LONG = 500
"""Letters and digits of a page from which on the share that is kept is looked at."""


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
    written = 0 if selector else letters_of(root)
    title, text = page_text(root, selector)
    damaged = text.count("\ufffd")
    if damaged > _DAMAGED_SHARE * len(text):
        raise RecordRejectedError(
            "damaged text", f"{damaged:,} replacement characters for what was lost before"
        )
    reader.stat_update("total")
    if not text:
        reader.stat_update("dropped_no content")
        return None
    if damaged:
        _note(
            reader,
            filepath,
            position,
            "pages with replacement characters",
            f"{damaged:,} replacement characters",
        )
    kept = sum(map(str.isalnum, text))
    if written >= _LONG and kept < _KEPT_SHARE * written:
        detail = (
            f"{kept:,} of the {written:,} letters and digits outside of links and menus are kept;"
            " options.content names the content"
        )
        _note(reader, filepath, position, "pages of which less than half is kept", detail)
    language = root.get("lang") or root.get(LANGUAGE)
    links = [
        link for link in root.iter("link", "a") if "license" in (link.get("rel") or "").split()
    ]
    canonical = next(
        (link.get("href") for link in root.iter("link") if link.get("rel") == "canonical"), None
    )
    return reader.document(
        text,
        document_id,
        filepath,
        title=title,
        language=[language] if language else [],
        license=license_name(*(link.get("href") for link in links)),
        url=url or canonical,
    )


def _note(reader: SourceReader, filepath: str, position: str, reason: str, detail: str) -> None:
    """Count a page that is read with defects, and report it among the unreadable ones."""
    reader.stat_update(f"{WARNING}{reason}")
    reader.report(filepath, position, reason, detail)
