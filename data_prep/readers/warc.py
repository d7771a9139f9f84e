"""Web archives (WARC, https://iipc.github.io/warc-specifications/): HTML pages and PDF files in their `response` records."""

import re
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document

from data_prep.readers.base import SourceReader
from data_prep.readers.html_text import PAGE_TYPES, content_type
from data_prep.readers.pdf import PdfReader
from data_prep.readers.web_page import page_document
from galen.errors import DataError


class WarcReader(SourceReader):
    """Yields one document per page or PDF that was answered with status 200; the id is its address.

    The fields `licence` and `content` (a CSS selector) of the last `warcinfo` record count where the source's options say nothing; an
    address that its `documents` (a regular expression) is not found in gives no document. data_prep/crawl.py writes them.
    Metadata besides what all readers give: url, crawled (time).
    """

    name = "warc"
    endings = (".warc", ".warc.gz")

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Yield the documents of one archive."""
        from warcio.archiveiterator import WARCIterator
        from warcio.exceptions import ArchiveLoadFailed

        info: dict[str, str] = {}
        with self.open(filepath) as stream:
            forward = _Forward(stream)
            try:
                for record in WARCIterator(forward):
                    if record.rec_type == "warcinfo":
                        info = _fields(record.content_stream().read(2**20))
                    elif record.rec_type == "response":
                        yield from self._response(record, filepath, info)
                    _drain(record, self.path_of(filepath))
                if forward.error is not None:
                    raise forward.error
            except ArchiveLoadFailed as error:
                raise DataError(f"{self.path_of(filepath)} is not a whole WARC file ({error}); fetch it again") from None

    def _response(self, record: Any, filepath: str, info: dict[str, str]) -> Iterator[Document]:
        url = record.rec_headers.get_header("WARC-Target-URI") or ""
        if record.http_headers is None or record.http_headers.get_statuscode() != "200":
            self.stat_update("total", "dropped_no answer")
            return
        kind, charset = content_type(record.http_headers.get_header("Content-Type") or "")
        if kind not in (*PAGE_TYPES, "application/pdf"):
            self.stat_update("total", "dropped_not a page")
            return
        if info.get("documents") and not re.search(info["documents"], url):
            self.stat_update("total", "dropped_only followed")
            return
        data = self.read_record(record.content_stream(), filepath, f"record {url}")
        if data is None:
            return
        if kind == "application/pdf":
            pdf = PdfReader(self.data_folder, self.options)
            pdf.stats, pdf.on_bad = self.stats, self.on_bad
            document = pdf.from_data(data, filepath, url, f"record {url}")
        else:
            document = page_document(self, data, filepath, url, self.options.content or info.get("content", ""), charset, url)
        if document is not None:
            document.metadata["url"] = url
            document.metadata["crawled"] = record.rec_headers.get_header("WARC-Date")
            document.metadata["licence"] = document.metadata["licence"] or info.get("licence", "")
            yield document


class _Forward:
    """A stream without `seek` and `tell`, so that warcio reads on only; it remembers an error, which warcio takes for the end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self._next(self._stream.read, size)

    def readline(self, size: int = -1) -> bytes:
        """Return the next line."""
        return self._next(self._stream.readline, size)

    def close(self) -> None:
        """Leave the stream to its owner."""

    def _next(self, method: Any, size: int) -> bytes:
        try:
            return bytes(method(size))
        except Exception as error:
            self.error = error
            raise


def _fields(data: bytes) -> dict[str, str]:
    lines = [line.partition(":") for line in data.decode("utf-8", "replace").splitlines()]
    return {name.strip().lower(): value.strip() for name, colon, value in lines if colon}


def _drain(record: Any, path: str) -> None:
    """Read the rest of a record; warcio itself takes a file that breaks off for one that ends."""
    while record.raw_stream.read(2**16):
        pass
    if getattr(record.raw_stream, "limit", 0) > 0:
        raise DataError(f"{path} breaks off inside a record; fetch it again")
