"""Failed HTTP requests: their cause in words, and whether and when to retry."""

import email.utils
import socket
import time
from collections.abc import Iterator

import requests
import urllib3

from galen import keys

RETRY_STATUSES = {408, 425, 429, 500, 502, 503, 504}
INVALID_ADDRESS = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
    UnicodeError,
)
"""Errors raised for a text that is not an address; retrying does not help."""
_MAX_RETRY_AFTER = 3600.0


class RequestRejectedError(Exception):
    """A response without the requested content.

    Args:
        message: the reason.
        retry: whether a further request may succeed.
        wait: seconds that the server asks to wait, if it does.
    """

    def __init__(self, message: str, retry: bool, wait: float | None) -> None:
        super().__init__(message)
        self.retry = retry
        self.wait = wait


def check_response(response: requests.Response, offset: int) -> None:
    """Check that a response contains a file, or its bytes from `offset` on.

    Raises:
        RequestRejectedError: it does not.
    """
    status = response.status_code
    if status not in (200, 206):
        reason = keys.hide(f"HTTP {status} ({response.reason})")
        raise RequestRejectedError(reason, status in RETRY_STATUSES, retry_after(response))
    content_range = response.headers.get("Content-Range") or ""
    if status == 206 and not content_range.startswith(f"bytes {offset}-"):
        raise RequestRejectedError("the server sent another range", True, None)


def retry_after(response: requests.Response) -> float | None:
    """Return the seconds that a server asks to wait (Retry-After: seconds or a date)."""
    value = (response.headers.get("Retry-After") or "").strip()
    if value.isdecimal():
        return min(float(value), _MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return min(max(0.0, moment.timestamp() - time.time()), _MAX_RETRY_AFTER)


def describe(error: requests.RequestException) -> str:
    """Return the cause of a failed request in words."""
    chain = list(_chain(error))

    def has(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in chain)

    is_proxy_error = has(requests.exceptions.ProxyError)
    if has(urllib3.exceptions.NameResolutionError, socket.gaierror):
        cause = "the name cannot be resolved (no network, or a wrong name)"
    elif has(ConnectionRefusedError):
        cause = "connection refused"
    elif has(requests.Timeout, urllib3.exceptions.TimeoutError):
        cause = "timed out"
    elif has(requests.exceptions.SSLError):
        cause = f"no trusted TLS connection ({keys.hide(str(chain[-1]))})"
    elif is_proxy_error:
        cause = keys.hide(str(chain[-1]))
    else:
        reason = getattr(chain[-1], "strerror", None) or type(chain[-1]).__name__
        cause = f"the connection was lost ({reason})"
    return f"through the proxy: {cause}" if is_proxy_error else cause


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, the first cause last."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = _cause(current)


def _cause(error: BaseException) -> BaseException | None:
    """Return the error that an error wraps: `requests` and `urllib3` have several ways."""
    candidates = (
        getattr(error, "reason", None),
        getattr(error, "original_error", None),
        *error.args,
        error.__cause__,
        error.__context__,
    )
    for candidate in candidates:
        if isinstance(candidate, BaseException):
            return candidate
    return None
