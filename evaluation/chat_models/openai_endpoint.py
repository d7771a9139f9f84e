"""A language model behind an OpenAI-compatible endpoint, local or remote, one message at a time."""

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from galen import keys
from galen.errors import DataError, UsageError

_KEY = "OPENAI_API_KEY"
"""Environment variable with the key; a local server needs none."""
_TRIES = 5
_TIMEOUT = 300.0
"""Maximum seconds for an answer."""
_WAIT = 2.0
"""Seconds before the second try; doubled before each further one."""
_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)
"""HTTP status codes after which the request is repeated."""
_MAX_BYTES = 64 * 2**20
"""Maximum size of an answer."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key to another host, or unencrypted."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, so that the redirect becomes an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """A model at an endpoint."""

    url: str
    """The endpoint's base, for example http://localhost:8000/v1."""
    model: str

    def ask(
        self, message: str, temperature: float = 0.0, seed: int = 0, max_tokens: int = 1024
    ) -> str:
        """Return the model's answer.

        Raises:
            UsageError: the address is invalid.
            DataError: the endpoint refuses, replies something else, or cannot be reached after
                several tries.
        """
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(
                f"{self.url} is not an endpoint URL; write for example http://localhost:8000/v1"
            )
        if "@" in urlsplit(self.url).netloc or urlsplit(self.url).query:
            raise UsageError(f"the endpoint's URL has a password or a query; set the key in {_KEY}")
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            "temperature": temperature,
            "seed": seed,
            "max_tokens": max_tokens,
        }
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {keys.read(_KEY) or 'none'}",
        }
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        answer = self._send(request)
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise DataError(
                f"{self.url} returns no chat completion, but {keys.hide(repr(answer))[:200]}"
            ) from None
        return keys.hide(str(text or ""))

    def _send(self, request: urllib.request.Request) -> bytes:
        """Return the reply to a request; repeats it after transient errors."""
        for number in range(_TRIES):
            is_last = number == _TRIES - 1
            try:
                return self._read(request)
            except urllib.error.HTTPError as error:
                if is_last or error.code not in _TRANSIENT:
                    raise self._refusal(error) from None
            except (OSError, http.client.HTTPException) as error:
                if is_last:
                    reason = getattr(error, "reason", error)
                    message = f"{self.url} cannot be reached: {reason}"
                    raise DataError(keys.hide(message)) from None
            time.sleep(_WAIT * 2**number)
        raise AssertionError("the last try returns or raises")

    def _read(self, request: urllib.request.Request) -> bytes:
        # the URL is checked to be http(s)
        with _OPENER.open(request, timeout=_TIMEOUT) as reply:
            answer: bytes = reply.read(_MAX_BYTES + 1)
        if len(answer) > _MAX_BYTES:
            raise DataError(
                f"{self.url} returns more than {_MAX_BYTES:,} bytes, which is no chat completion"
            )
        if reply.length:
            raise http.client.IncompleteRead(answer, reply.length)
        return answer

    def _refusal(self, error: urllib.error.HTTPError) -> DataError:
        """Return the error for a redirect or an HTTP error."""
        if 300 <= error.code < 400:
            target = urlsplit(urljoin(self.url, error.headers.get("Location") or ""))
            return DataError(
                f"{self.url} redirects to {target.scheme}://{target.hostname}{target.path}; the key"
                " is not sent there: give the final URL"
            )
        content = error.read(2000).decode(errors="replace")
        detail = keys.hide(f"{error.code} {error.reason}: {content}")
        return DataError(f"{self.url} refuses with {detail[:300]}")
