"""A language model behind an OpenAI-compatible endpoint, asked one message at a time; a local server does as well as a remote one."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """Where to ask, and which model."""

    url: str
    """The endpoint's base, for example http://localhost:8000/v1."""
    model: str

    def ask(self, message: str, temperature: float = 0.0, seed: int = 0, max_tokens: int = 1024) -> str:
        """Return the model's answer.

        Raises:
            UsageError: the address is no address.
            DataError: the endpoint refuses, answers something else, or cannot be reached after several tries.
        """
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"{self.url} is no address of an endpoint; write for example http://localhost:8000/v1")
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            "temperature": temperature,
            "seed": seed,
            "max_tokens": max_tokens,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get(_KEY, 'none')}"}
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        answer = self._send(request)
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise DataError(f"{self.url} gives no chat completion, but {answer[:200]!r}") from None
        return text or ""

    def _send(self, request: urllib.request.Request) -> bytes:
        for number in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:  # the address is checked to be http(s)
                    return reply.read()
            except urllib.error.HTTPError as error:
                if error.code not in _PASSING or number == _TRIES - 1:
                    detail = error.read(300).decode(errors="replace")
                    raise DataError(f"{self.url} refuses with {error.code} {error.reason}: {detail}") from None
            except (OSError, http.client.HTTPException) as error:
                if number == _TRIES - 1:
                    raise DataError(f"{self.url} cannot be reached: {getattr(error, 'reason', error)}") from None
            time.sleep(_WAIT * 2**number)
        raise AssertionError("the last try returns or raises")
