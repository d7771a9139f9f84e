"""What is read from the replies of an OpenAI-compatible endpoint."""

import math
from dataclasses import dataclass
from typing import Any

from evaluation.backends.openai_client import InvalidReplyError
from galen.errors import DataError


def choices(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a reply, at least one."""
    found = reply.get("choices")
    if not isinstance(found, list) or not found:
        raise InvalidReplyError(f"no choices, but {str(reply)[:200]!r}")
    if not all(isinstance(choice, dict) for choice in found):
        raise InvalidReplyError(f"no completion, but {str(reply)[:200]!r}")
    return found


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """The tokens of a prompt with their log-probabilities."""

    tokens: list[str]
    values: list[Any]
    tops: list[Any]
    """The likeliest tokens at each position, where the endpoint returns them."""

    def score(self, start: int, end: int) -> list[Any]:
        """Return the log-likelihood (nats) of the tokens from start to end, and if it is greedy."""
        selected = self.values[start:end]
        are_numbers = all(
            isinstance(value, int | float) and math.isfinite(value) for value in selected
        )
        if len(selected) != end - start or not are_numbers:
            raise InvalidReplyError("log-probabilities that do not fit the prompt's tokens")
        pairs = zip(selected, self.tops[start:end], strict=False)
        is_greedy = len(self.tops) >= end and all(_is_likeliest(*pair) for pair in pairs)
        return [float(sum(selected)), is_greedy]


def _is_likeliest(value: float, top: Any) -> bool:
    """Return whether a token's log-probability is the highest at its position."""
    return isinstance(top, dict) and bool(top) and value >= max(top.values())


def echoed_prompt(choice: dict[str, Any], url: str) -> EchoedPrompt:
    """Return an echoed prompt.

    Raises:
        DataError: the endpoint returns no log-probabilities of prompts.
    """
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        logprobs = {}
    tokens = logprobs.get("tokens")
    values = logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        raise DataError(
            f"{url} returns no log-probabilities of prompts (completions with `echo` and"
            " `logprobs`, as vLLM and SGLang have them), which this task compares; use a protocol"
            " that generates, such as chat"
        )
    return EchoedPrompt(tokens, values, logprobs.get("top_logprobs") or [])


def answer(reply: dict[str, Any]) -> dict[str, Any]:
    """Return text and token count of a generated answer, and whether max_tokens ended it.

    Thinking that the endpoint returns on its own precedes the answer within `<think>`.
    """
    choice = choices(reply)[0]
    if "message" in choice:
        message = choice["message"]
        text = message.get("content") if isinstance(message, dict) else 0
        thinking = _thinking(message) if isinstance(message, dict) else ""
        if isinstance(text, list):
            text, thinking = _joined_parts(text)
    else:
        text = choice.get("text", 0)
        thinking = ""
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise InvalidReplyError(f"no completion, but {str(choice)[:200]!r}")
    truncated = choice.get("finish_reason") == "length"
    if thinking:
        closing = "" if truncated and not text else "</think>\n\n"
        text = f"<think>{thinking}{closing}{text}"
    usage = reply.get("usage")
    num_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(num_tokens, int):
        num_tokens = None
    return {"text": text, "num_tokens": num_tokens, "truncated": truncated}


def _joined_parts(parts: list[Any]) -> tuple[str, str]:
    """Return the text and the thinking of an answer in parts, as Mistral's endpoint gives them."""
    texts = {"text": "", "thinking": ""}
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in texts:
            raise InvalidReplyError(f"an answer with a part {str(part)[:100]!r}")
        content = part.get(kind)
        if isinstance(content, list):
            content = _joined_parts(content)[0]
        texts[kind] += str(content or "")
    return texts["text"], texts["thinking"]


def _thinking(message: dict[str, Any]) -> str:
    """Return the thinking that an endpoint separates from the answer; empty if there is none."""
    for key in ("reasoning_content", "reasoning"):
        if isinstance(message.get(key), str) and message[key]:
            return str(message[key])
    return ""


def counted(reply: dict[str, Any], value: Any) -> dict[str, Any]:
    """Return what is counted of a reply."""
    record: dict[str, Any] = {}
    usage = reply.get("usage")
    if isinstance(usage, dict):
        record["usage"] = usage
    if isinstance(reply.get("model"), str):
        record["served_model"] = reply["model"]
    if isinstance(value, dict):
        record["truncated"] = value["truncated"]
        record["empty"] = not value["text"].strip()
    return record
