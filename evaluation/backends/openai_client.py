"""Requests to an OpenAI-compatible endpoint, local or remote: retries, limits, and the key.

    client = OpenAIClient("http://localhost:8000/v1")
    text = client.post("chat/completions", body, parse)

A client may be used by several threads: when the endpoint asks one to wait (429), all wait.
"""

import email.utils
import http.client
import json
import logging
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from galen import keys
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)

T = TypeVar("T")
KEY = "OPENAI_API_KEY"
"""Environment variable with the key; a local server needs none."""
TRIES = 6
TIMEOUT = 300.0
"""Default of the maximum seconds for a reply."""
FIRST_WAIT = 2.0
"""Seconds before the second try; doubled before each further one."""
LONGEST_WAIT = 60.0
LONGEST_RETRY_AFTER = 600.0
"""Maximum seconds that `Retry-After` is obeyed for."""
_TRANSIENT = (408, 409, 425, 429, *range(500, 600))
"""HTTP status codes after which the request is repeated: also those of proxies, such as 524."""
_LASTING = (501, 505)
"""HTTP status codes among them after which it is not: the endpoint does not know the request."""
_FINAL = "insufficient_quota"
"""In a reply of status 429: waiting does not help."""
SECONDS_BETWEEN_WARNINGS = 5.0
"""Of the warnings about repeated requests, so that concurrent requests do not fill the log."""
MAX_BYTES = 64 * 2**20
"""Maximum size of a reply."""
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class InvalidReplyError(Exception):
    """A reply that is not as the protocol has it; the request is repeated."""


class RefusedError(DataError):
    """The endpoint refuses a request for good."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key to another host, or unencrypted."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, so that the redirect becomes an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(slots=True)
class _Gate:
    """The time before which no request is sent, and that of the last warning."""

    opens_at: float = 0.0
    warns_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close_for(self, seconds: float) -> None:
        """Let no request pass for some seconds."""
        with self.lock:
            self.opens_at = max(self.opens_at, time.monotonic() + seconds)

    def seconds(self) -> float:
        """Return how long it is still closed."""
        return max(self.opens_at - time.monotonic(), 0.0)

    def may_warn(self) -> bool:
        """Return whether no warning was allowed within the last seconds."""
        with self.lock:
            now = time.monotonic()
            if now < self.warns_at:
                return False
            self.warns_at = now + SECONDS_BETWEEN_WARNINGS
            return True


@dataclass(frozen=True, slots=True)
class OpenAIClient:
    """An endpoint.

    Raises:
        UsageError: the address is invalid.
    """

    url: str
    """The endpoint's base, for example http://localhost:8000/v1."""
    key_variable: str = KEY
    """Environment variable with the key."""
    timeout: float = TIMEOUT
    """Maximum seconds for a reply."""
    _gate: _Gate = field(default_factory=_Gate)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(
                f"{self.url} is not an endpoint URL; write for example http://localhost:8000/v1"
            )
        if "@" in parts.netloc or parts.query:
            raise UsageError(
                f"the endpoint's URL has a password or a query; set the key in {self.key_variable}"
            )
        if not _ENVIRONMENT_NAME.fullmatch(self.key_variable):
            raise UsageError(
                "the key is read from an environment variable: give its name, such as"
                f" {KEY}, not the key itself"
            )

    def close(self) -> None:
        """Let no further request be sent, nor repeated."""
        self._closed.set()

    def post(
        self, path: str, body: dict[str, Any], parse: Callable[[dict[str, Any]], T]
    ) -> tuple[T, int]:
        """Return the parsed reply to a request, and the number of repetitions.

        Repeated are requests after transient errors, dropped connections and replies that `parse`
        refuses, after the seconds of `Retry-After` or after a growing, random time.

        Args:
            path: of the route, after the base.
            body: the request.
            parse: returns what is needed of the reply's JSON object, from which keys are removed;
                it raises `InvalidReplyError`.

        Raises:
            DataError: the endpoint refuses, replies something else, or cannot be reached after
                several tries; or the client was closed.
        """
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {keys.read(self.key_variable) or 'none'}",
        }
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/{path}", json.dumps(body).encode(), headers
        )
        for number in range(TRIES):
            is_last = number == TRIES - 1
            self._closed.wait(self._gate.seconds())
            if self._closed.is_set():
                break
            # up to half of it is random, so that requests that failed together come apart
            wait = min(FIRST_WAIT * 2**number, LONGEST_WAIT) * random.uniform(0.5, 1.0)
            try:
                return parse(self._object(self._read(request))), number
            except InvalidReplyError as error:
                failure = DataError(f"{self.url} returns {error}")
                if is_last:
                    raise failure from None
            except urllib.error.HTTPError as error:
                failure = self._refusal(error)
                is_transient = error.code in _TRANSIENT and error.code not in _LASTING
                if is_last or not is_transient or _FINAL in str(failure):
                    raise failure from None
                asked = retry_after(error.headers.get("Retry-After"))
                if asked is not None:
                    self._gate.close_for(min(asked, LONGEST_RETRY_AFTER))
                    wait = 0.0
            except (OSError, http.client.HTTPException) as error:
                failure = self._unreachable(error)
                if is_last:
                    raise failure from None
            self._warn(failure, wait or self._gate.seconds(), number + 2)
            self._closed.wait(wait)
        raise DataError(f"{self.url}: not sent, since another request has failed")

    def _warn(self, failure: DataError, wait: float, attempt: int) -> None:
        """Log that a request is repeated."""
        if not self._closed.is_set() and self._gate.may_warn():
            logger.warning(f"{failure}; attempt {attempt} of {TRIES} in {wait:.0f} s")

    def _unreachable(self, error: Exception) -> DataError:
        reason = getattr(error, "reason", None) or error
        text = str(reason) or type(error).__name__
        return DataError(self._hide(f"{self.url} cannot be reached: {text}"))

    def _hide(self, text: str) -> str:
        """Return a text without the key."""
        return keys.hide(text, self.key_variable)

    def _object(self, reply: bytes) -> dict[str, Any]:
        text = self._hide(reply.decode(errors="replace"))
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InvalidReplyError(f"no JSON object, but {text[:200]!r}")
        if "choices" not in value and value.get("error"):
            raise InvalidReplyError(f"an error: {json.dumps(value['error'])[:300]}")
        return value

    def _read(self, request: urllib.request.Request) -> bytes:
        # the URL is checked to be http(s)
        with _OPENER.open(request, timeout=self.timeout) as reply:
            content: bytes = reply.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(
                f"{self.url} returns more than {MAX_BYTES:,} bytes, which is no completion"
            )
        if reply.length:
            raise http.client.IncompleteRead(content, reply.length)
        return content

    def _refusal(self, error: urllib.error.HTTPError) -> DataError:
        """Return the error for a redirect or an HTTP error."""
        if 300 <= error.code < 400:
            target = urlsplit(urljoin(self.url, error.headers.get("Location") or ""))
            return DataError(
                f"{self.url} redirects to {target.scheme}://{target.hostname}{target.path}; the key"
                " is not sent there: give the final URL"
            )
        try:
            content = error.read(2000).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            content = ""
        detail = self._hide(f"{error.code} {error.reason}: {content}")
        return RefusedError(f"{self.url} refuses with {detail[:300]}")


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for: a number or an HTTP date."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(date.timestamp() - time.time(), 0.0)
