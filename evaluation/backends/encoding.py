"""Token ids of prompts with their continuations, and of documents.

Tokenization as in lm-evaluation-harness.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.prompts.registry import Prompt
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the continuations whose log-likelihood is asked for, as token ids.

    Neither is ever empty.
    """

    prompt: list[int]
    continuations: list[list[int]]

    @property
    def input_length(self) -> int:
        """Length of the longest input: the prompt and a continuation without its last token."""
        return len(self.prompt) + max(map(len, self.continuations)) - 1


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt to be answered in words."""

    prompt: list[int]
    max_new_tokens: int
    stop: tuple[str, ...]
    """Strings that end an answer."""
    temperature: float
    seeds: tuple[str, ...]
    """One a branch: what its random numbers are drawn from.

    With temperature 0 only their number counts.
    """

    @property
    def input_length(self) -> int:
        """Tokens that the request takes up: all samples, each with the longest answer."""
        return (len(self.prompt) + self.max_new_tokens) * len(self.seeds)


def beginning(tokenizer: Any) -> list[int]:
    """Return the ids that a tokenizer puts before a text.

    BOS, what its model has in its place, or nothing.
    """
    bare = tokenizer.encode("x", add_special_tokens=False)
    ids = tokenizer.encode("x")
    places = [place for place in range(len(ids)) if ids[place : place + len(bare)] == bare]
    return ids[: places[0]] if places else []


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text to be continued: with the tokenizer's beginning, without EOS.

    The text may hold the beginning already.
    """
    return _begun(tokenizer, tokenizer.encode(text, add_special_tokens=False, verbose=False))


def _begun(tokenizer: Any, ids: list[int]) -> list[int]:
    first = beginning(tokenizer)
    return ids if ids[: len(first)] == first else first + ids


def encode_answer(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt, as it has them alone, and those of the answer behind it.

    Where the prompt's last characters would go into one token with the answer's first, as `: B` is
    one in some vocabularies, the answer has the tokens that it has behind a line break.

    Raises:
        DataError: one of the two has no tokens, so that there is nothing to score or train on.
    """
    before = tokenizer.encode(prompt, add_special_tokens=False, verbose=False)
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False, verbose=False)
    behind = whole[len(before) :]
    if whole[: len(before)] != before:
        line = tokenizer.encode("\n", add_special_tokens=False)
        both = tokenizer.encode("\n" + answer, add_special_tokens=False)
        behind = (
            both[len(line) :]
            if both[: len(line)] == line
            else tokenizer.encode(answer, add_special_tokens=False)
        )
    if not before or not behind:
        raise DataError(f"this tokenizer gives no token for {answer[:60]!r} after {prompt[-40:]!r}")
    return _begun(tokenizer, before), behind


def encode_pair(tokenizer: Any, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt and of its continuation.

    Spaces at the end of the prompt move to the continuation, as in lm-evaluation-harness 0.4
    (`api/model.py`, `_encode_pair`). Unlike there no special token that the tokenizer appends
    is between the two or is scored, and the prompt's tokens never change.

    Raises:
        DataError: one of the two has no tokens.
    """
    stripped = prompt.rstrip()
    return encode_answer(tokenizer, stripped, prompt[len(stripped) :] + continuation)


def encode_prompt(tokenizer: Any, prompt: Prompt) -> Request:
    """Return the request for all options of a question, in their order."""
    pairs = [
        encode_pair(tokenizer, prompt.text, continuation)
        for continuation in prompt.continuations.values()
    ]
    return Request(pairs[0][0], [continuation for _, continuation in pairs])


def encode_letters(
    tokenizer: Any, prompt: Prompt, tokens: Mapping[str, list[int]]
) -> tuple[Request, list[str]]:
    """Return the request for the token after a prompt, and the option letter of each continuation.

    Args:
        tokenizer: the model's.
        prompt: its text is encoded as it is, with spaces and line breaks at its end.
        tokens: text of a token without spaces around it to its ids, from `tokens_by_text`.

    Raises:
        DataError: no token of the vocabulary is one of the answers.
    """
    pairs = [
        (token, letter)
        for letter, text in prompt.continuations.items()
        for token in tokens.get(text.strip(), [])
    ]
    lacking = set(prompt.continuations) - {letter for _, letter in pairs}
    if lacking:
        raise DataError(
            "the vocabulary has no token for the answers"
            f" {', '.join(prompt.continuations[key] for key in sorted(lacking))!r}"
        )
    return Request(encode_text(tokenizer, prompt.text), [[token] for token, _ in pairs]), [
        letter for _, letter in pairs
    ]


def tokens_by_text(tokenizer: Any, texts: Collection[str]) -> dict[str, list[int]]:
    """Return for each text the ids of all tokens with this text, surrounding spaces aside.

    A single letter must have its case; a word may have any: `Yes` is the answer `yes`.
    """
    found: dict[str, list[int]] = {text: [] for text in texts}
    for token, text in enumerate(
        tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    ):
        bare = text.strip()
        if bare in found:
            found[bare].append(token)
        elif len(bare) > 1 and bare.lower() in found:
            found[bare.lower()].append(token)
    return found


def encode_document(tokenizer: Any, text: str, max_tokens: int) -> tuple[Request, int]:
    """Return the request for a document's first `max_tokens` tokens, and their UTF-8 size in bytes.

    The first token is predicted from the tokenizer's BOS token, or EOS where it has none
    (lm-evaluation-harness' `prefix_token_id`); no special token is scored.

    Raises:
        DataError: the text has no tokens.
    """
    ids = tokenizer.encode(
        text, add_special_tokens=False, truncation=True, max_length=max_tokens, verbose=False
    )
    if not ids:
        raise DataError(f"this tokenizer gives no token for the document {text[:40]!r}")
    covered = text
    if len(ids) == max_tokens:
        covered = tokenizer.decode(ids, clean_up_tokenization_spaces=False).rstrip("\ufffd")
    prefix = (
        tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    )
    if prefix is None:
        raise DataError(
            "this tokenizer has neither a BOS nor an EOS token to begin a document with; add one to"
            " its tokenizer_config.json"
        )
    return Request([prefix], [ids]), len(covered.encode())


def truncate_left(request: Request, length: int) -> Request:
    """Return the request with its prompt truncated on the left: no input exceeds `length` tokens.

    At least one token of the prompt stays, whatever the length.
    """
    excess = request.input_length - length
    return (
        request
        if excess <= 0
        else Request(request.prompt[min(excess, len(request.prompt) - 1) :], request.continuations)
    )
