"""Web addresses: shown without secrets, compared by origin, joined."""

from urllib.parse import urljoin, urlsplit

from galen import keys

_DEFAULT_PORTS = {"http": 80, "https": 443}


def public(url: str) -> str:
    """Return an address without its query, which may hold a signature, and without credentials."""
    scheme, separator, rest = keys.hide(url).split("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port: a key is sent only to the origin that it was meant for."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        return scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(scheme)
    except ValueError:  # not an address: reported when it is requested
        return "", "", None


def path_of(url: str) -> str:
    """Return the path of an address, or the text itself if it is not an address."""
    try:
        return urlsplit(url).path
    except ValueError:  # reported when it is requested
        return url


def join(url: str, target: str) -> str:
    """Return the address of a redirect's target, which may be relative to `url`."""
    try:
        return urljoin(url, target)
    except ValueError:  # reported when it is requested
        return target
