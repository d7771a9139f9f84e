"""A language model behind an OpenAI-compatible endpoint, local or remote, one message at a time."""

from typing import Any

from evaluation.backends.openai_client import InvalidReplyError, OpenAIClient


class ChatEndpoint:
    """A model at an endpoint.

    Args:
        url: the endpoint's base, for example http://localhost:8000/v1.
        model: the model's name there.

    Raises:
        UsageError: the address is invalid.
    """

    def __init__(self, url: str, model: str) -> None:
        self._client = OpenAIClient(url)
        self.model = model

    def ask(
        self, message: str, temperature: float = 0.0, seed: int = 0, max_tokens: int = 1024
    ) -> str:
        """Return the model's answer.

        Raises:
            DataError: the endpoint refuses, replies something else, or cannot be reached after
                several tries.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            "temperature": temperature,
            "seed": seed,
            "max_tokens": max_tokens,
        }
        text, _ = self._client.post("chat/completions", body, _content)
        return text


def _content(reply: dict[str, Any]) -> str:
    try:
        return str(reply["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        raise InvalidReplyError(f"no chat completion, but {str(reply)[:200]!r}") from None
