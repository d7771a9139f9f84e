"""The Scrapy spider: follows a site's links and appends what it fetches to the archive."""

from collections.abc import AsyncIterator, Iterator
from http.client import responses
from typing import Any
from urllib.parse import urljoin

import scrapy
from lxml import etree
from scrapy.exceptions import (
    DownloadCancelledError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from w3lib.url import safe_url_string

from data_prep.crawling.archive import Archive
from data_prep.crawling.decompression import BrokenAnswerError, decompress, too_large
from data_prep.crawling.website import Site, names_sitemap, normal
from data_prep.readers.html_text import PAGE_TYPES, content_type, parse, sniffed_type
from data_prep.readers.page_encoding import UnknownEncodingError
from data_prep.readers.xml_tree import parse_xml
from galen.progress import Progress


class NotOfSiteError(IgnoreRequest):
    """A request that the site file does not ask for."""


class SiteOnly:
    """A downloader middleware that keeps requests on the site.

    Each request, also one that a redirect makes, goes to the site's hosts and paths or nowhere.
    """

    def __init__(self, crawler: Any) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Any) -> "SiteOnly":
        """Return the middleware of a crawler."""
        return cls(crawler)

    def process_request(self, request: scrapy.Request) -> None:
        """Let a request pass, or stop it.

        Raises:
            NotOfSiteError: it leads elsewhere.
        """
        site: Site = self.crawler.spider.site
        if request.meta.get("dont_obey_robotstxt"):  # the request for robots.txt itself
            allowed = site.has_host(request.url)
        else:
            allowed = site.may_request(request.url, sitemap=request.meta.get("sitemap", False))
        if not allowed:
            raise NotOfSiteError(f"{request.url} is not of this site")


class SiteSpider(scrapy.Spider):
    """Crawls one site.

    Where an earlier run stopped is read off its archive: pages in it are not fetched again, and
    their links are followed from there. So a kill at any moment loses nothing, which Scrapy's own
    job folder does not promise.
    """

    name = "site"

    def __init__(self, site: Site, archive: Archive, progress: Progress, **known: Any) -> None:
        super().__init__(**known)
        self.site = site
        self.archive = archive
        self.progress = progress
        self.seen: set[str] = set()
        self.done = 0
        self.failed: list[str] = []
        self.elsewhere = 0
        """Requests that were not made, since a redirect led out of the site."""
        self.other_types = 0
        """Answers that are neither pages nor PDF files nor sitemaps."""

    async def start(self) -> AsyncIterator[Any]:
        """Yield the first requests."""
        waiting: dict[str, None] = {}
        for address, header, body in self.archive.pages():
            self.seen.add(canonical(address))
            self.done += 1
            waiting |= dict.fromkeys(self._links(address, *_type_of(header, body), body))
        self.progress.update(self.done)
        for address in [*map(canonical, self.site.start), *waiting]:
            if address not in self.seen:
                self.seen.add(address)
                yield self._request(address)

    def _request(self, address: str) -> scrapy.Request:
        return scrapy.Request(
            address,
            callback=self.parse,
            errback=self.fail,
            dont_filter=True,
            meta={"sitemap": names_sitemap(address)},
        )

    def parse(self, response: Response, **known: Any) -> Iterator[Any]:
        """Keep an answer and follow its links."""
        if self.done >= self.site.max_pages:
            raise scrapy.exceptions.CloseSpider("max_pages")
        final = canonical(response.url)
        if asked := response.meta.get("redirect_urls"):  # perhaps to a page that came already
            if final in self.seen and final != canonical(asked[0]):
                return
            self.seen.add(final)
        body = response.body
        try:
            if response.meta["sitemap"] and body.startswith(b"\x1f\x8b"):  # a file ….xml.gz
                body = decompress(body, "gzip", self.site.max_page_bytes)
        except BrokenAnswerError as error:
            self.failed.append(f"{final}: {error}")
            return
        header = (response.headers.get("Content-Type") or b"").decode("latin-1")
        kind, charset = _type_of(header, body, sitemap=response.meta["sitemap"])
        if self.site.wants(final) and kind in (*PAGE_TYPES, "application/pdf"):
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, values in response.headers.items()
                if name.lower()
                not in (b"content-encoding", b"transfer-encoding", b"content-length")
                for value in values
            ]
            self.archive.write(
                final,
                f"{response.status} {responses.get(response.status, '')}",
                headers,
                response.body,
            )
            self.done += 1
            self.progress.update()
        elif kind not in (*PAGE_TYPES, "application/pdf") and "xml" not in kind:
            self.other_types += 1
        for address in self._links(final, kind, charset, body):
            if address not in self.seen:
                self.seen.add(address)
                yield self._request(address)

    def fail(self, failure: Any) -> None:
        """Note a page that could not be had; the next run tries it again."""
        error = failure.value
        if isinstance(error, NotOfSiteError):
            self.elsewhere += 1
        elif not (isinstance(error, IgnoreRequest) and "robots" in str(error).lower()):
            self.failed.append(f"{failure.request.url}: {self._reason(error)}")

    def _reason(self, error: BaseException) -> str:
        """Say why a page could not be had."""
        match error:
            case HttpError():
                response = error.response
                reason = f"HTTP {response.status} ({responses.get(response.status, 'unknown')})"
                if location := response.headers.get("Location"):
                    reason += f" to {location.decode('latin-1')}, which is not followed"
                return reason
            case DownloadCancelledError():
                return too_large(self.site.max_page_bytes)
            case ResponseDataLossError():
                return "the connection broke off before the whole answer came"
            case DownloadTimeoutError():
                return f"took longer than {self.site.max_page_seconds:g} s (max_page_seconds)"
        return str(error) or type(error).__name__

    def _links(self, address: str, kind: str, charset: str | None, body: bytes) -> Iterator[str]:
        """Yield the addresses that a page or sitemap names and the site wants, in order.

        `kind` and `charset` are those of its Content-Type.
        """
        targets: list[str] = []
        if kind in PAGE_TYPES:
            try:
                root = parse(body, charset)
            except UnknownEncodingError:  # kept all the same: the reader says what is wrong with it
                root = None
            if root is not None:
                base = next(
                    (element.get("href") for element in root.iter("base") if element.get("href")),
                    None,
                )
                address = urljoin(address, base or "")
                targets = [element.get("href") or "" for element in root.iter("a")]
        elif "xml" in kind:
            try:
                targets = [
                    (element.text or "").strip() for element in parse_xml(body).iter("{*}loc")
                ]
            except etree.XMLSyntaxError:
                self.failed.append(f"{address}: a sitemap that is no XML")
        for target in targets:
            try:
                found = canonical(urljoin(address, target))
                wanted = self.site.may_request(
                    found, sitemap=names_sitemap(found) and "xml" in kind
                )
            except ValueError:  # no address, as "http://[x"
                continue
            if wanted:
                yield found


def canonical(address: str) -> str:
    """Return an address as it is requested, compared and archived: escaped, in normal form.

    Raises:
        ValueError: it is no address.
    """
    return normal(safe_url_string(address))


def _type_of(header: str, body: bytes, *, sitemap: bool = False) -> tuple[str, str | None]:
    """Return media type and charset of an answer.

    They come from its Content-Type header, or from its content if it has none. What came from a
    sitemap's address and is neither page nor PDF is one, whatever its header says.
    """
    kind, charset = content_type(header) if header else (sniffed_type(body), None)
    if sitemap and (
        kind not in (*PAGE_TYPES, "application/pdf") or sniffed_type(body) == "application/xml"
    ):
        kind = "application/xml"
    return kind, charset
