"""The recipe of a crawl: start addresses, links to follow, content."""

import re
import string
from urllib.parse import unquote, urlsplit

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from data_prep.readers.css_selector import Selector
from galen.recipe import STRICT

_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")


@dataclass(kw_only=True, config=STRICT)
class Site:
    """A web site to crawl."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """Short name; output file names begin with it."""

    output: str
    """Folder for NAME-00000.warc.gz and so on."""

    start: list[str] = Field(min_length=1)
    """Start addresses, or sitemaps (paths that end in .xml or .xml.gz)."""

    allow: list[str] = Field(min_length=1)
    """Regular expressions for the addresses to fetch.

    An address is fetched if one of them matches a part of it and its host is that of a start
    address or in `hosts`. Patterns are matched against the address's normal form (RFC 3986, 6.2.2:
    "/a" for "/%61"), and against that form with unescaped spaces and non-ASCII letters.
    """

    deny: list[str] = Field(default_factory=list)
    """Regular expressions; an address that one matches is not fetched."""

    hosts: list[str] = Field(default_factory=list)
    """Further hosts, such as cdn.example.org."""

    documents: str = ""
    """Regular expression for the addresses of content; of other pages only links are followed.

    Empty: every page.
    """

    content: Selector = ""
    """CSS selector of the part of a page that is content; empty: the reader finds it."""

    license: str = "other"
    """License of the content, for example CC-BY-NC-SA-3.0.

    "other": none that permits reuse, so ask the owner.
    """

    terms: str = ""
    """Address of the terms of use."""

    delay: float = Field(default=5.0, ge=0)
    """Seconds between two requests; a longer Crawl-delay of robots.txt counts instead."""

    max_pages: int = Field(default=100_000, ge=1)
    """Maximum number of pages of all runs together."""

    max_page_bytes: int = Field(default=64 * 2**20, ge=1)
    """Larger responses are aborted and skipped."""

    max_page_seconds: float = Field(default=120.0, gt=0)
    """Responses that take longer are aborted and skipped."""

    allow_private_addresses: bool = False
    """Also fetch hosts whose name resolves to a private, loopback or link-local address."""

    @model_validator(mode="after")
    def _check(self) -> "Site":
        for pattern in [*self.allow, *self.deny, self.documents]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        for address in self.start:
            if urlsplit(address).scheme not in ("http", "https"):
                raise ValueError(f"start: {address!r} is not an http address")
            if not self.may_request(address, sitemap=names_sitemap(address)):
                raise ValueError(f"start: {address} matches none of `allow`, or one of `deny`")
        return self

    def wants(self, address: str) -> bool:
        """Return whether an address is to be fetched and archived."""
        return self.may_request(address, sitemap=False)

    def may_request(self, address: str, *, sitemap: bool) -> bool:
        """Return whether to request an address.

        A sitemap need not match `allow` and is not archived; the addresses that it lists must.
        """
        address = normal(address)
        if not self.has_host(address) or _is_matched(self.deny, address):
            return False
        return sitemap or _is_matched(self.allow, address)

    def has_host(self, address: str) -> bool:
        """Return whether an address is an http(s) one of the site's hosts."""
        parts = urlsplit(address)
        hosts = [*self.hosts, *(urlsplit(start).netloc for start in self.start)]
        if parts.scheme not in ("http", "https"):
            return False
        return parts.netloc.lower() in map(str.lower, hosts)


def names_sitemap(address: str) -> bool:
    """Return whether an address is that of a sitemap, by its ending."""
    return urlsplit(address).path.endswith((".xml", ".xml.gz"))


def normal(address: str) -> str:
    """Return an address in the normal form of RFC 3986, 6.2.2, without its fragment.

    Unnecessary escapes are undone, the others are in upper case, and the path has no "." and "..".
    Addresses with the same normal form are the same address.

    Raises:
        ValueError: it is not an address.
    """
    parts = urlsplit(address)
    path, query = (re.sub("%[0-9A-Fa-f]{2}", _escape, part) for part in (parts.path, parts.query))
    if parts.netloc:
        path = _without_dots(path)
    return parts._replace(netloc=parts.netloc.lower(), path=path, query=query, fragment="").geturl()


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match[0][1:], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _without_dots(path: str) -> str:
    """Return an absolute path without its segments "." and ".." (RFC 3986, 5.2.4)."""
    result: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del result[-1:]
        elif segment != ".":
            result.append(segment)
    if segments[-1] in (".", ".."):
        result.append("")
    return "/" + "/".join(result)


def _is_matched(patterns: list[str], address: str) -> bool:
    """Return whether a pattern matches an address in normal form, escaped or unescaped."""
    unescaped = re.sub("(?:%20|%[89A-F][0-9A-F])+", lambda match: unquote(match[0]), address)
    return any(re.search(one, address) or re.search(one, unescaped) for one in patterns)
