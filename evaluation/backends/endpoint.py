"""A model at an OpenAI-compatible endpoint: how it is asked, and what that is estimated to cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BYTES_PER_TOKEN = 4
"""For estimates alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A model at an endpoint, and how it is asked."""

    base_url: str
    model_name: str
    route: Literal["chat", "completions"] = "chat"
    tokenizer: Path | None = None
    """Folder of the model's tokenizer; None: the endpoint tokenizes."""
    top_logprobs: int = 20
    """Tokens whose log-probabilities are asked for after a prompt."""
    concurrency: int = 8
    timeout: float = 300.0
    key_variable: str = "OPENAI_API_KEY"
    price_in: float | None = None
    """Of a million prompt tokens."""
    price_out: float | None = None
    """Of a million generated tokens."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the scores."""
        return {
            "base_url": self.base_url,
            "model_name": self.model_name,
            "route": self.route,
            "top_logprobs": self.top_logprobs,
            "tokenizer": None if self.tokenizer is None else str(self.tokenizer),
        }

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """Return the cost of tokens, in the currency of the prices; None without prices."""
        if self.price_in is None and self.price_out is None:
            return None
        total = prompt_tokens * (self.price_in or 0) + completion_tokens * (self.price_out or 0)
        return total / 1e6


@dataclass(slots=True)
class Estimate:
    """Requests to be sent."""

    requests: int = 0
    prompt_tokens: float = 0.0
    max_completion_tokens: int = 0

    def text(self, endpoint: Endpoint) -> str:
        """Return the estimate in words."""
        result = (
            f"{endpoint.model_name} at {endpoint.base_url}: {self.requests:,} requests, about"
            f" {self.prompt_tokens:,.0f} prompt tokens, at most {self.max_completion_tokens:,}"
            " generated tokens"
        )
        cost = endpoint.cost(self.prompt_tokens, self.max_completion_tokens)
        return result if cost is None else f"{result}; cost about {cost:,.2f} at most"

    def add(self, body: dict[str, Any]) -> None:
        """Add a request."""
        self.requests += 1
        self.max_completion_tokens += body["max_tokens"]
        prompts = body.get("prompt")
        if prompts is None:
            prompts = "".join(message["content"] for message in body["messages"])
        is_batch = isinstance(prompts, list) and not isinstance(prompts[0], int)
        for prompt in prompts if is_batch else [prompts]:
            if isinstance(prompt, str):
                self.prompt_tokens += len(prompt.encode()) / BYTES_PER_TOKEN
            else:
                self.prompt_tokens += len(prompt)
