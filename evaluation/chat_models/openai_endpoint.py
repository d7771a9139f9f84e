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
"""Seconds that an answer may take."""
_WAIT = 2.0
"""Seconds before the second try; each further one waits twice as long."""
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""HTTP codes after which asking again may help."""


_MOST_BYTES = 64 * 2**20
"""Bytes of an answer at most."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would take the key along: to another host, or unencrypted."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request: the redirect becomes an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """Where to ask, and which model."""

    url: str
    """The endpoint's base, for example http://localhost:8000/v1."""
    model: str

    def ask(
        self, message: str, temperature: float = 0.0, seed: int = 0, max_tokens: int = 1024
    ) -> str:
        """Return the model's answer.

        Raises:
            UsageError: the address is no address.
            DataError: the endpoint refuses, answers something else, or cannot be reached after
                several tries.
        """
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(
                f"{self.url} is no address of an endpoint; write for example"
                " http://localhost:8000/v1"
            )
        if "@" in urlsplit(self.url).netloc or urlsplit(self.url).query:
            raise UsageError(
                f"the endpoint's address holds a password or a query; a key goes into {_KEY}"
            )
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
                f"{self.url} gives no chat completion, but {keys.hide(repr(answer))[:200]}"
            ) from None
        return keys.hide(str(text or ""))

    def _send(self, request: urllib.request.Request) -> bytes:
        for number in range(_TRIES):
            try:
                # the address is checked to be http(s)
                with _OPENER.open(request, timeout=_TIMEOUT) as reply:
                    answer = reply.read(_MOST_BYTES + 1)
                if len(answer) > _MOST_BYTES:
                    raise DataError(
                        f"{self.url} answers with more than {_MOST_BYTES:,} bytes: that is no chat"
                        " completion"
                    )
                if reply.length:
                    raise http.client.IncompleteRead(answer, reply.length)
                return answer
            except urllib.error.HTTPError as error:
                if 300 <= error.code < 400:
                    target = urlsplit(urljoin(self.url, error.headers.get("Location") or ""))
                    raise DataError(
                        f"{self.url} leads to {target.scheme}://{target.hostname}{target.path}; the"
                        " key is not sent there: give the endpoint's own address"
                    ) from None
                if error.code not in _PASSING or number == _TRIES - 1:
                    detail = keys.hide(
                        f"{error.code} {error.reason}: {error.read(2000).decode(errors='replace')}"
                    )
                    raise DataError(f"{self.url} refuses with {detail[:300]}") from None
            except (OSError, http.client.HTTPException) as error:
                if number == _TRIES - 1:
                    raise DataError(
                        keys.hide(
                            f"{self.url} cannot be reached: {getattr(error, 'reason', error)}"
                        )
                    ) from None
            time.sleep(_WAIT * 2**number)
        raise AssertionError("the last try returns or raises")
