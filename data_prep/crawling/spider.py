"""The Scrapy spider: follows a site's links and appends what it fetches to the archive."""

from collections.abc import AsyncIterator, Iterator
from http.client import responses
from typing import Any
from urllib.parse import urljoin

import scrapy
from lxml import etree
from scrapy.http import Response, TextResponse
from w3lib.url import safe_url_string

from data_prep.crawling.archive import Archive
from data_prep.crawling.website import Site, normal
from data_prep.readers.html_text import PAGE_TYPES, content_type, parse
from data_prep.readers.xml_tree import parse_xml
from galen.progress import Progress


class NotOfSiteError(scrapy.exceptions.IgnoreRequest):
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
        self.site, self.archive, self.progress = site, archive, progress
        self.seen: set[str] = set()
        self.done = 0
        self.failed: list[str] = []
        self.elsewhere = 0
        """Requests that were not made, since a redirect led out of the site."""

    async def start(self) -> AsyncIterator[Any]:
        """Yield the first requests."""
        waiting: dict[str, None] = {}
        for address, header, body in self.archive.pages():
            self.seen.add(canonical(address))
            self.done += 1
            waiting |= dict.fromkeys(self._links(address, header, body))
        self.progress.update(self.done)
        for address in [*map(canonical, self.site.start), *waiting]:
            if address not in self.seen:
                self.seen.add(address)
                yield self._request(address)

    def _request(self, address: str) -> scrapy.Request:
        sitemap = address.endswith(".xml")
        return scrapy.Request(
            address,
            callback=self.parse,
            errback=self.fail,
            dont_filter=True,
            meta={"sitemap": sitemap},
        )

    def parse(self, response: Response, **known: Any) -> Iterator[Any]:
        """Keep an answer and follow its links."""
        header = (response.headers.get("Content-Type") or b"").decode("latin-1")
        if self.done >= self.site.max_pages:
            raise scrapy.exceptions.CloseSpider("max_pages")
        final = canonical(response.url)
        if asked := response.meta.get("redirect_urls"):  # perhaps to a page that came already
            if final in self.seen and final != canonical(asked[0]):
                return
            self.seen.add(final)
        if self.site.wants(final) and content_type(header)[0] in (*PAGE_TYPES, "application/pdf"):
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
        for address in self._links(
            final, header, response.body if isinstance(response, TextResponse) else b""
        ):
            if address not in self.seen:
                self.seen.add(address)
                yield self._request(address)

    def fail(self, failure: Any) -> None:
        """Note a page that could not be had; the next run tries it again."""
        if failure.check(NotOfSiteError):
            self.elsewhere += 1
            return
        if (
            failure.check(scrapy.exceptions.IgnoreRequest) is None
            or "robots" not in str(failure.value).lower()
        ):
            self.failed.append(
                f"{failure.request.url}: {failure.value or type(failure.value).__name__}"
            )

    def _links(self, address: str, header: str, body: bytes) -> Iterator[str]:
        """Yield the addresses that a page or sitemap names and the site wants, in order.

        `header` is its Content-Type.
        """
        kind, charset = content_type(header)
        targets: list[str] = []
        if kind in PAGE_TYPES:
            root = parse(body, charset)
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
                    found, sitemap=found.endswith(".xml") and "xml" in kind
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
