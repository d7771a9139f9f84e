"""A site's robots.txt before the crawl.

Says whether it can be fetched, and which Crawl-delay it asks for.
"""

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

_MOST_BYTES = 2**20
"""RFC 9309 asks for at least 500 KiB."""
_MOST_REDIRECTS = 5


def crawl_delay(site: Site, agent: str) -> float:
    """Return the longest Crawl-delay (seconds) that the start hosts' robots.txt asks of this agent.

    Raises:
        DataError: a robots.txt cannot be had (that it does not exist is no error), or leads out of
            the site.
    """
    longest = 0.0
    for host in sorted(
        {f"{urlsplit(start).scheme}://{urlsplit(start).netloc}" for start in site.start}
    ):
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
        for _ in range(_MOST_REDIRECTS + 1):
            for scheme in ("http://", "https://"):
                session.mount(
                    scheme,
                    (
                        HTTPAdapter()
                        if may_be_private(site, urlsplit(target).hostname or "")
                        else _PublicAdapter()
                    ),
                )
            try:
                with session.get(
                    target,
                    headers={"User-Agent": agent},
                    timeout=60,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    further = session.get_redirect_target(answer)
                    if further is None:
                        return answer.status_code, _beginning(answer)
            except _PrivateAddressError as error:
                raise DataError(f"{address}: {error}; nothing is fetched") from None
            except requests.RequestException as error:
                raise DataError(
                    f"{address} cannot be had ({type(error).__name__}); without it nothing is"
                    " fetched"
                ) from None
            target = urljoin(target, further)
            if not site.has_host(target):
                raise DataError(
                    f"{address} leads to {target}; if that is the site's, name its host in `hosts`;"
                    " nothing is fetched"
                )
    raise DataError(f"{address} leads from redirect to redirect; without it nothing is fetched")


def _beginning(answer: requests.Response) -> str:
    content = b""
    for piece in answer.iter_content(2**14):
        content += piece
        if len(content) >= _MOST_BYTES:
            break
    return content.decode("utf-8", "replace")


class _PrivateAddressError(Exception):
    """A connection that leads into a private network."""


def _checked(connection: socket.socket, host: str) -> socket.socket:
    """Return an open connection whose far end is public; before anything is sent on it."""
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
    """Connects to public addresses only; through the user's proxy, as the proxy does."""

    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        super().init_poolmanager(*given, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
