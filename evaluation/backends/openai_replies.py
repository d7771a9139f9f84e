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


_OPENING = "<think>"
_CLOSING = "</think>\n\n"
"""Around thinking that an endpoint returns apart from the answer."""


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """The tokens of a prompt with their log-probabilities."""

    tokens: list[str]
    values: list[Any]
    tops: list[Any]
    """The likeliest tokens at each position, where the endpoint returns them."""

    def score(self, start: int, end: int) -> list[Any]:
        """Return the log-likelihood (nats) of the tokens from start to end, and if it is greedy.

        The latter is None where the endpoint does not return the likeliest tokens.
        """
        selected = self.values[start:end]
        are_numbers = all(
            isinstance(value, int | float) and math.isfinite(value) for value in selected
        )
        if len(selected) != end - start or not are_numbers:
            raise InvalidReplyError("log-probabilities that do not fit the prompt's tokens")
        tops = self.tops[start:end]
        is_greedy = None
        if len(tops) == end - start and all(isinstance(top, dict) and top for top in tops):
            pairs = zip(selected, tops, strict=True)
            is_greedy = all(value >= max(top.values()) for value, top in pairs)
        return [float(sum(selected)), is_greedy]


def echoed_prompt(choice: dict[str, Any], sent: str | list[int], url: str) -> EchoedPrompt:
    """Return an echoed prompt.

    Args:
        choice: the endpoint's reply to it.
        sent: the prompt as text or as token ids.
        url: of the endpoint.

    Raises:
        DataError: the endpoint returns no log-probabilities of prompts, or those of other tokens.
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
    _check_echo(choice, sent, tokens, url)
    return EchoedPrompt(tokens, values, logprobs.get("top_logprobs") or [])


def _check_echo(choice: dict[str, Any], sent: str | list[int], tokens: list[str], url: str) -> None:
    """Check that an echo has the tokens of the prompt and no others, which would be scored, too.

    Raises:
        DataError: it has others.
    """
    text = choice.get("text")
    if isinstance(sent, str):
        if isinstance(text, str) and len(text) > len(sent) and text.startswith(sent):
            raise DataError(
                f"{url} continues a prompt although `max_tokens` is 0: {text[len(sent) :][:60]!r};"
                " the continuation cannot be told from the prompt"
            )
    elif len(tokens) != len(sent):
        raise DataError(
            f"{url} returns log-probabilities of {len(tokens)} tokens for a prompt of {len(sent)}"
            " token ids: it adds special tokens, or generates further ones; give no --tokenizer"
        )


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
        closing = "" if truncated and not text else _CLOSING
        text = f"{_OPENING}{thinking}{closing}{text}"
    usage = reply.get("usage")
    num_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(num_tokens, int):
        num_tokens = None
    return {"text": text, "num_tokens": num_tokens, "truncated": truncated}


def split_thinking(text: str) -> tuple[str, str]:
    """Return the thinking of an answer with its markers, and the rest: only that has an end."""
    if not text.startswith(_OPENING):
        return "", text
    thinking, closing, rest = text.rpartition(_CLOSING)
    return (thinking + closing, rest) if closing else (text, "")


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
