"""A site's robots.txt before the crawl: whether it can be fetched, and its Crawl-delay."""

import socket
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from protego import Protego
from requests.adapters import HTTPAdapter

from data_prep.crawling.addresses import is_public, may_be_private, refusal
from data_prep.crawling.website import Site
from galen.errors import DataError

_MAX_BYTES = 2**20
"""RFC 9309 asks for at least 500 KiB."""
_MAX_REDIRECTS = 5


def crawl_delay(site: Site, agent: str) -> float:
    """Return the longest Crawl-delay (seconds) that the start hosts' robots.txt asks of this agent.

    Raises:
        DataError: a robots.txt cannot be fetched (a missing one is no error), or redirects to
            another site.
    """
    longest = 0.0
    addresses = map(urlsplit, site.start)
    for host in sorted({f"{address.scheme}://{address.netloc}" for address in addresses}):
        status, text = _get(site, f"{host}/robots.txt", agent)
        if status >= 500:
            raise DataError(f"{host}/robots.txt: HTTP {status}; without it nothing is fetched")
        if status < 400:
            longest = max(longest, float(Protego.parse(text).crawl_delay(agent) or 0))
    return longest


def _get(site: Site, address: str, agent: str) -> tuple[int, str]:
    """Return status and text of a robots.txt; redirects are followed within the site's hosts."""
    target = address
    with requests.Session() as session:
        for _ in range(_MAX_REDIRECTS + 1):
            is_free = may_be_private(site, urlsplit(target).hostname or "")
            adapter = HTTPAdapter() if is_free else _PublicAdapter()
            for scheme in ("http://", "https://"):
                session.mount(
                    scheme,
                    adapter,
                )
            try:
                with session.get(
                    target,
                    headers={"User-Agent": agent},
                    timeout=60,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    location = session.get_redirect_target(response)
                    if location is None:
                        return response.status_code, _beginning(response)
            except _PrivateAddressError as error:
                raise DataError(f"{address}: {error}; nothing is fetched") from None
            except requests.RequestException as error:
                raise DataError(
                    f"{address} cannot be fetched ({type(error).__name__}); without it nothing is"
                    " fetched"
                ) from None
            target = urljoin(target, location)
            if not site.has_host(target):
                raise DataError(
                    f"{address} redirects to {target}; if that belongs to the site, add its host to"
                    " `hosts`; nothing is fetched"
                )
    raise DataError(f"{address}: too many redirects; without it nothing is fetched")


def _beginning(response: requests.Response) -> str:
    content = b""
    for block in response.iter_content(2**14):
        content += block
        if len(content) >= _MAX_BYTES:
            break
    return content.decode("utf-8", "replace")


class _PrivateAddressError(Exception):
    """A connection that leads into a private network."""


def _checked(connection: socket.socket, host: str) -> socket.socket:
    """Return an open connection to a public address; called before anything is sent."""
    address = str(connection.getpeername()[0])
    if not is_public(address):
        connection.close()
        raise _PrivateAddressError(refusal(host, address))
    return connection


class _HTTPConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), self.host)


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), self.host)


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _PublicAdapter(HTTPAdapter):
    """Connects to public addresses only; with a proxy, the proxy connects instead."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
