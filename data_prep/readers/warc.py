"""Web archives (WARC, https://iipc.github.io/warc-specifications/).

HTML pages and PDF files in their `response` records.
"""

from collections.abc import Iterator
from typing import Any

import regex
from datatrove.data import Document
from pydantic.dataclasses import dataclass

from data_prep.readers.base import SAMPLE_BYTES, SourceReader
from data_prep.readers.content_encoding import decompressed
from data_prep.readers.css_selector import check_selector
from data_prep.readers.html_text import PAGE_TYPES, content_type, sniffed_type
from data_prep.readers.pdf import PdfOptions, PdfReader
from data_prep.readers.record import Record, RecordRejectedError, Rejection
from data_prep.readers.web_page import HtmlOptions, page_document
from galen.errors import DataError
from galen.recipe import STRICT

_PATTERN_SECONDS = 10
_SLOW = f"the pattern documents of the archive took more than {_PATTERN_SECONDS} s on an address"


@dataclass(kw_only=True, config=STRICT)
class WarcOptions(HtmlOptions, PdfOptions):
    """Options of web archives: those of their pages and PDF files."""


class WarcReader(SourceReader):
    """Yields one document per page or PDF that was answered with status 200; the id is its address.

    The fields `license` and `content` (a CSS selector) of the last `warcinfo` record count where
    the source's options say nothing; an address that its `documents` (a regular expression) is not
    found in gives no document. data_prep/crawl.py writes them. Metadata besides what all readers
    give: url, crawled (time).
    """

    name = "warc"
    Options = WarcOptions
    options: WarcOptions
    endings = (".warc", ".warc.gz")
    libraries = ("trafilatura", "warcio.archiveiterator", "warcio.recordloader", "pypdfium2")

    def records(self, filepath: str) -> Iterator[Record]:
        """Yield the responses of one archive, still compressed, each with the last `warcinfo`.

        Also those that are wrong.
        """
        from warcio.archiveiterator import WARCIterator
        from warcio.exceptions import ArchiveLoadFailed

        info = _Info()
        with self.open(filepath) as stream:
            forward = _Forward(stream)
            try:
                for number, record in enumerate(WARCIterator(forward, no_record_parse=True), 1):
                    if record.length is None:
                        raise DataError(
                            f"{self.path_of(filepath)}: record {number} does not say how long it is"
                            " (Content-Length)"
                        )
                    if record.rec_type == "warcinfo":
                        info = _Info(record.content_stream().read(2**20))
                        if info.wrong is not None:
                            yield Record(f"record {number}", sample=info.data, rejection=info.wrong)
                    elif record.rec_type == "response":
                        url = record.rec_headers.get_header("WARC-Target-URI") or ""
                        yield Record(f"record {url or number}", (record, url, info))
                        if forward.error is not None:
                            raise forward.error
                    _drain(record, self.path_of(filepath))
                if forward.error is not None:
                    raise forward.error
            except ArchiveLoadFailed as error:
                raise DataError(
                    f"{self.path_of(filepath)} is not a complete WARC file ({error}); fetch it"
                    " again"
                ) from None

    def parse(self, record: Record, filepath: str) -> Iterator[Document]:
        """Yield the document of a response."""
        from warcio.recordloader import ArcWarcRecordLoader

        loader = ArcWarcRecordLoader(verify_http=False, arc2warc=False)
        response, url, info = record.content
        if not url:
            raise RecordRejectedError(
                "no address", "the response does not say of which address it is (WARC-Target-URI)"
            )
        response.http_headers = loader.load_http_headers(
            "response", url, response.raw_stream, response.length
        )
        if response.http_headers is None or response.http_headers.get_statuscode() != "200":
            self.stat_update("total", "dropped_status other than 200")
            return
        header = response.http_headers.get_header("Content-Type")
        data = None if header else self._body(response, record)
        if data is not None:
            media_type = sniffed_type(data)
            charset = None
        else:
            media_type, charset = content_type(header)
        if media_type not in (*PAGE_TYPES, "application/pdf"):
            self.stat_update("total", "dropped_not HTML or PDF")
            return
        if not info.wants(url):
            self.stat_update("total", "dropped_only followed for links")
            return
        if data is None:
            data = self._body(response, record)
        if media_type == "application/pdf":
            document = self.helper(PdfReader).from_data(data, filepath, url, record.position)
        else:
            document = page_document(
                self, data, filepath, url, self.options.content or info.content, charset, url
            )
        if document is not None:
            document.metadata["url"] = url
            document.metadata["crawled"] = response.rec_headers.get_header("WARC-Date")
            document.metadata["license"] = document.metadata["license"] or info.license
            yield document

    def _body(self, response: Any, record: Record) -> bytes:
        """Return what was answered, decompressed."""
        from warcio.bufferedreaders import ChunkedDataReader

        headers = response.http_headers
        stream = response.raw_stream
        if (headers.get_header("Transfer-Encoding") or "").strip().lower() == "chunked":
            stream = ChunkedDataReader(stream, decomp_type=None)
        body = self.record_of(stream, record.position)
        record.sample = body.sample
        if body.rejection is not None:
            raise RecordRejectedError(*body.rejection)
        data = decompressed(
            body.content,
            headers.get_header("Content-Encoding") or "",
            self.options.max_record_bytes,
        )
        record.sample = data[:SAMPLE_BYTES]
        return data


class _Info:
    """The fields of a `warcinfo` record that count here.

    License, content (a CSS selector), documents (a regular expression).
    """

    def __init__(self, data: bytes = b"") -> None:
        fields = _fields(data)
        self.data = data
        self.license = fields.get("license", "")
        self.content = fields.get("content", "")
        self.wrong: Rejection | None = None
        self._documents: Any = None
        self._slow = False
        try:
            if pattern := fields.get("documents"):
                self._documents = regex.compile(pattern)
        except (regex.error, RecursionError, OverflowError) as error:
            self.wrong = Rejection(
                "invalid pattern",
                f"its documents: is no regular expression ({error}); all pages of the archive are"
                " taken",
            )
        try:
            check_selector(self.content)
        except ValueError as error:
            self.content = ""
            self.wrong = Rejection(
                "invalid selector", f"its content: {error}; the content is detected without it"
            )

    def wants(self, url: str) -> bool:
        """Return whether the page at an address is a document, not only a page with links.

        Raises:
            RecordRejectedError: the pattern takes seconds on this address, as some do by design or
                by mistake.
        """
        if self._documents is None:
            return True
        if self._slow:
            raise RecordRejectedError("slow pattern", _SLOW)
        try:
            return self._documents.search(url, timeout=_PATTERN_SECONDS) is not None
        except TimeoutError:
            self._slow = True
            raise RecordRejectedError("slow pattern", _SLOW) from None


class _Forward:
    """A stream without `seek` and `tell`, so that warcio reads on only.

    It remembers an error, which warcio takes for the end.

    A read gives what comes at once, so that an error takes nothing with it that precedes it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        return self._next(self._stream.read1, size)

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
