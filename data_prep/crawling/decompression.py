"""Decompression of complete responses only; Scrapy itself keeps the beginning of a broken one."""

from typing import Any

import scrapy
from scrapy.http import Response
from scrapy.responsetypes import responsetypes

from data_prep.readers.content_encoding import decompressed
from data_prep.readers.record import RecordRejectedError

_ACCEPTED = "gzip, deflate, br"
"""Encodings that `decompressed` supports."""
_NOTHING_ALLOWED = b"User-agent: *\nDisallow: /"


class BrokenResponseError(scrapy.exceptions.IgnoreRequest):
    """A response that cannot be decompressed, or is too large when it is."""


class DecompressionMiddleware:
    """A downloader middleware that replaces Scrapy's HttpCompressionMiddleware."""

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
            BrokenResponseError: it is truncated, damaged, too large or of unknown compression.
        """
        header = b",".join(response.headers.getlist("Content-Encoding")).decode("latin-1")
        if not header or not 200 <= response.status < 300:  # of others only the status matters
            return response
        limit = self.crawler.spider.site.max_page_bytes
        try:
            body = decompress(response.body, header, limit)
        except BrokenResponseError:
            if not request.meta.get("dont_obey_robotstxt"):
                raise
            body = _NOTHING_ALLOWED  # a truncated robots.txt lacks some of its rules
        del response.headers["Content-Encoding"]
        response_class = responsetypes.from_args(response.headers, response.url, body=body)
        return response.replace(cls=response_class, body=body)


def decompress(body: bytes, header: str, limit: int) -> bytes:
    """Return a body decompressed as its Content-Encoding header says.

    Raises:
        BrokenResponseError: it is truncated, damaged, too large or of unknown compression.
    """
    try:
        return decompressed(body, header, limit)
    except RecordRejectedError as refused:
        raise BrokenResponseError(
            too_large(limit) if refused.rejection.reason == "too long" else str(refused)
        ) from None


def too_large(limit: int) -> str:
    """Return the message for a response that is larger than a site file allows."""
    return f"larger than {limit:,} bytes (max_page_bytes)"
