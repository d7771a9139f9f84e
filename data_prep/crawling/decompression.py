"""Decompression of complete responses only; Scrapy itself keeps what it can of a broken one."""

from typing import Any

import scrapy
from scrapy.http import Response
from scrapy.responsetypes import responsetypes

from data_prep.readers.content_encoding import decompressed
from data_prep.readers.record import RecordRejectedError

_ACCEPTED = "gzip, deflate, br"
"""What `decompressed` knows."""
_NOTHING_ALLOWED = b"User-agent: *\nDisallow: /"


class BrokenAnswerError(scrapy.exceptions.IgnoreRequest):
    """A response that cannot be decompressed, or is too large when it is."""


class DecompressionMiddleware:
    """A downloader middleware in place of Scrapy's HttpCompressionMiddleware."""

    def __init__(self, crawler: Any) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Any) -> "DecompressionMiddleware":
        """Return the middleware of a crawler."""
        return cls(crawler)

    def process_request(self, request: scrapy.Request) -> None:
        """Add the supported compression formats."""
        request.headers.setdefault("Accept-Encoding", _ACCEPTED)

    def process_response(self, request: scrapy.Request, response: Response) -> Response:
        """Return a response with its body decompressed.

        Raises:
            BrokenAnswerError: it breaks off, is damaged, too large or compressed in an unknown way.
        """
        header = b",".join(response.headers.getlist("Content-Encoding")).decode("latin-1")
        if not header or not 200 <= response.status < 300:  # of others the status is what counts
            return response
        limit = self.crawler.spider.site.max_page_bytes
        try:
            body = decompress(response.body, header, limit)
        except BrokenAnswerError:
            if not request.meta.get("dont_obey_robotstxt"):
                raise
            body = _NOTHING_ALLOWED  # half a robots.txt forbids half of what the whole one does
        del response.headers["Content-Encoding"]
        kind = responsetypes.from_args(headers=response.headers, url=response.url, body=body)
        return response.replace(cls=kind, body=body)


def decompress(body: bytes, header: str, limit: int) -> bytes:
    """Return a body decompressed as its Content-Encoding header says.

    Raises:
        BrokenAnswerError: it breaks off, is damaged, too large or compressed in an unknown way.
    """
    try:
        return decompressed(body, header, limit)
    except RecordRejectedError as refused:
        raise BrokenAnswerError(
            too_large(limit) if refused.rejection.reason == "too long" else str(refused)
        ) from None


def too_large(limit: int) -> str:
    """Say that an answer is larger than a site file allows."""
    return f"larger than {limit:,} bytes (max_page_bytes)"
