"""Web pages as files."""

from collections.abc import Iterator

from datatrove.data import Document

from data_prep.readers.base import SourceReader
from data_prep.readers.html_text import page_text, parse
from data_prep.readers.licence import licence_name
from data_prep.readers.record import Record
from data_prep.readers.xml_tree import LANGUAGE


class HtmlReader(SourceReader):
    """Yields one document per page that has content; the id is the file's name with a hash of it.

    Metadata besides what all readers give: url (the canonical one, if the page states it).
    """

    name = "html"
    endings = (".html", ".htm", ".xhtml", ".html.gz", ".htm.gz")
    many_per_task = True
    libraries = ("trafilatura",)

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the file."""
        return self.whole_file(filepath)

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a file."""
        data = record.content
        document = page_document(self, data, filepath, self.content_id(filepath, data), self.options.content)
        if document is not None:
            yield document


def page_document(
    reader: SourceReader, data: bytes, filepath: str, identifier: str, selector: str, charset: str | None = None, url: str = ""
) -> Document | None:
    """Return a page's document, counted as read; None, counted as dropped, without content."""
    root = parse(data, charset)
    if root is None:
        reader.stat_update("total", "dropped_empty page")
        return None
    title, text = page_text(root, selector)
    reader.stat_update("total")
    if not text:
        reader.stat_update("dropped_no content")
        return None
    language = root.get("lang") or root.get(LANGUAGE)
    links = [link for link in root.iter("link", "a") if "license" in (link.get("rel") or "").split()]
    canonical = next((link.get("href") for link in root.iter("link") if link.get("rel") == "canonical"), None)
    return reader.document(
        text,
        identifier,
        filepath,
        title=title,
        language=[language] if language else [],
        licence=licence_name(*(link.get("href") for link in links)),
        url=url or canonical,
    )
