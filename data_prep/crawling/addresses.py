"""Addresses that a crawl may connect to.

The addresses of the site's own hosts; private ones only if the site file allows them.
"""

import ipaddress
import logging
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from data_prep.crawling.website import Site

logger = logging.getLogger(__name__)


def is_public(address: str) -> bool:
    """Return whether an IP address is public.

    That is, not private, loopback, link-local, shared or multicast.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


def may_be_private(site: Site, host: str) -> bool:
    """Return whether a host may have a private address.

    It may if the site file allows it, if the host itself is an address, or if it is the user's
    proxy.
    """
    if site.allow_private_addresses or host.lower() == "localhost" or _is_address(host):
        return True
    proxies = (
        urlsplit(proxy if "//" in proxy else f"//{proxy}").hostname
        for proxy in getproxies().values()
    )
    return host.lower() in proxies


class Addresses:
    """Checks the addresses of the site's hosts as they are resolved."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._reported: set[str] = set()

    def allows(self, host: str, address: str) -> bool:
        """Return whether to connect to this address of a host.

        A refused address is logged once per host.
        """
        if is_public(address) or may_be_private(self._site, host):
            return True
        if host not in self._reported:
            self._reported.add(host)
            logger.warning(f"not fetched: {refusal(host, address)}")
        return False


def refusal(host: str, address: str) -> str:
    """Return the reason why a host is not connected to."""
    return (
        f"{host} has the private address {address}; if the site is yours, set"
        " allow_private_addresses=true"
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def checked_resolver(addresses: Addresses) -> Any:
    """Return a class for Scrapy's DNS_RESOLVER that refuses addresses that are not allowed."""
    from scrapy.resolver import CachingThreadedResolver
    from twisted.internet.error import DNSLookupError

    class CheckedResolver(CachingThreadedResolver):
        def getHostByName(self, name: str, timeout: Any = ()) -> Any:
            return super().getHostByName(name, timeout).addCallback(self._checked, name)

        def _checked(self, address: str, name: str) -> str:
            if not addresses.allows(name, address):
                raise DNSLookupError(refusal(name, address))
            return address

    return CheckedResolver
