"""The Scrapy spider: it follows a site's links and appends the responses to the archive."""

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
from data_prep.crawling.decompression import BrokenResponseError, decompress, too_large
from data_prep.crawling.website import Site, names_sitemap, normal
from data_prep.readers.html_text import PAGE_TYPES, content_type, parse, sniffed_type
from data_prep.readers.page_encoding import UnknownEncodingError
from data_prep.readers.xml_tree import parse_xml
from galen.progress import Progress


class NotOfSiteError(IgnoreRequest):
    """A request that the site file does not allow."""


class SiteOnly:
    """A downloader middleware that keeps requests on the site.

    Requests to other hosts or paths, also those of a redirect, are dropped.
    """

    def __init__(self, crawler: Any) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Any) -> "SiteOnly":
        """Return the middleware of a crawler."""
        return cls(crawler)

    def process_request(self, request: scrapy.Request) -> None:
        """Check a request.

        Raises:
            NotOfSiteError: it is not of the site.
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

    An earlier run is resumed from its archive: archived pages are not fetched again, and their
    links are followed. So a kill at any moment loses nothing, unlike with Scrapy's own job folder.
    """

    name = "site"

    def __init__(self, site: Site, archive: Archive, progress: Progress, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site
        self.archive = archive
        self.progress = progress
        self.seen: set[str] = set()
        self.done = 0
        self.failed: list[str] = []
        self.off_site = 0
        """Requests that were dropped because a redirect left the site."""
        self.other_types = 0
        """Responses that are neither pages nor PDF files nor sitemaps."""

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

    def parse(self, response: Response, **kwargs: Any) -> Iterator[Any]:
        """Archive a response and follow its links."""
        if self.done >= self.site.max_pages:
            raise scrapy.exceptions.CloseSpider("max_pages")
        final = canonical(response.url)
        if requested := response.meta.get("redirect_urls"):  # perhaps to a page fetched already
            if final in self.seen and final != canonical(requested[0]):
                return
            self.seen.add(final)
        body = response.body
        try:
            if response.meta["sitemap"] and body.startswith(b"\x1f\x8b"):  # a file ….xml.gz
                body = decompress(body, "gzip", self.site.max_page_bytes)
        except BrokenResponseError as error:
            self.failed.append(f"{final}: {error}")
            return
        header = (response.headers.get("Content-Type") or b"").decode("latin-1")
        media_type, charset = _type_of(header, body, sitemap=response.meta["sitemap"])
        is_content = media_type in (*PAGE_TYPES, "application/pdf")
        if is_content and self.site.wants(final):
            status = f"{response.status} {responses.get(response.status, '')}"
            self.archive.write(final, status, _archived_headers(response), response.body)
            self.done += 1
            self.progress.update()
        elif not is_content and "xml" not in media_type:
            self.other_types += 1
        for address in self._links(final, media_type, charset, body):
            if address not in self.seen:
                self.seen.add(address)
                yield self._request(address)

    def fail(self, failure: Any) -> None:
        """Count a page that could not be fetched; the next run tries it again."""
        error = failure.value
        if isinstance(error, NotOfSiteError):
            self.off_site += 1
        elif not (isinstance(error, IgnoreRequest) and "robots" in str(error).lower()):
            self.failed.append(f"{failure.request.url}: {self._reason(error)}")

    def _reason(self, error: BaseException) -> str:
        """Return the reason why a page could not be fetched."""
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
                return "the connection was lost before the response was complete"
            case DownloadTimeoutError():
                return f"took longer than {self.site.max_page_seconds:g} s (max_page_seconds)"
        return str(error) or type(error).__name__

    def _links(
        self, address: str, media_type: str, charset: str | None, body: bytes
    ) -> Iterator[str]:
        """Yield the links of a page or sitemap that the site allows, in order.

        Args:
            address: of the page.
            media_type: of its Content-Type.
            charset: of its Content-Type.
            body: its content.
        """
        is_sitemap = False
        targets: list[str] = []
        if media_type in PAGE_TYPES:
            targets = _page_links(address, charset, body)
        elif "xml" in media_type:
            is_sitemap = True
            try:
                locations = parse_xml(body).iter("{*}loc")
                targets = [(element.text or "").strip() for element in locations]
            except etree.XMLSyntaxError:
                self.failed.append(f"{address}: the sitemap is not XML")
        for target in targets:
            try:
                link = canonical(urljoin(address, target))
                is_allowed = self.site.may_request(link, sitemap=is_sitemap and names_sitemap(link))
            except ValueError:  # not an address, such as "http://[x"
                continue
            if is_allowed:
                yield link


def _page_links(address: str, charset: str | None, body: bytes) -> list[str]:
    """Return the targets of a page's links, resolved if it has a base address."""
    try:
        root = parse(body, charset)
    except UnknownEncodingError:  # archived nevertheless: the reader reports it
        return []
    if root is None:
        return []
    targets = [element.get("href") or "" for element in root.iter("a")]
    for element in root.iter("base"):
        if base := element.get("href"):
            return [_join(_join(address, base), target) for target in targets]
    return targets


def _join(address: str, target: str) -> str:
    try:
        return urljoin(address, target)
    except ValueError:  # not an address: such links are dropped later
        return target


def _archived_headers(response: Response) -> list[tuple[str, str]]:
    """Return the headers of a response without those that describe its transfer."""
    headers = []
    for name, values in response.headers.items():
        if name.lower() not in (b"content-encoding", b"transfer-encoding", b"content-length"):
            headers += [(name.decode("latin-1"), value.decode("latin-1")) for value in values]
    return headers


def canonical(address: str) -> str:
    """Return an address as it is requested, compared and archived: escaped, in normal form.

    Raises:
        ValueError: it is not an address.
    """
    return normal(safe_url_string(address))


def _type_of(header: str, body: bytes, *, sitemap: bool = False) -> tuple[str, str | None]:
    """Return media type and charset of a response.

    They come from its Content-Type header, or from its content if it has none. A response from a
    sitemap's address that is neither page nor PDF is a sitemap, whatever its header says.
    """
    media_type, charset = content_type(header) if header else (sniffed_type(body), None)
    is_content = media_type in (*PAGE_TYPES, "application/pdf")
    if sitemap and (not is_content or sniffed_type(body) == "application/xml"):
        media_type = "application/xml"
    return media_type, charset
