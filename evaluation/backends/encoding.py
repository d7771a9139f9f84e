"""Token ids of prompts with their continuations, and of documents.

Tokenization as in lm-evaluation-harness.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.backends.sampling import Sampling
from evaluation.prompts.registry import Prompt
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and the continuations to be scored, as token ids; neither is empty."""

    prompt: list[int]
    continuations: list[list[int]]

    @property
    def input_length(self) -> int:
        """Length of the longest input: the prompt and a continuation without its last token."""
        return len(self.prompt) + max(map(len, self.continuations)) - 1


@dataclass(frozen=True, slots=True)
class TopTokensRequest:
    """A prompt whose most likely next tokens are asked for."""

    prompt: list[int]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt after which text is generated."""

    prompt: list[int]
    max_new_tokens: int
    stop: tuple[str, ...]
    """Strings that end an answer."""
    sampling: Sampling
    seeds: tuple[str, ...]
    """One per sample: the seed of its random numbers; unused at temperature 0."""
    json_schema: str = ""
    """JSON schema that the answer must follow, in backends with guided decoding; "" for none."""

    @property
    def input_length(self) -> int:
        """Tokens of all samples, each with the longest answer."""
        return (len(self.prompt) + self.max_new_tokens) * len(self.seeds)


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated answer."""

    text: str
    """Without the end token, up to the first stop string."""
    num_tokens: int
    """Generated tokens, with the end token."""
    finished: bool
    """Whether the answer ended by itself; False if max_new_tokens ended it."""
    ids: tuple[int, ...] = ()
    """The generated tokens; empty where the backend does not know them."""
    is_forced: bool = False
    """Whether Galen closed the model's thinking and asked for the answer."""


def leading_special_tokens(tokenizer: Any) -> list[int]:
    """Return the ids that a tokenizer puts before a text: BOS, its substitute, or nothing."""
    plain = tokenizer.encode("x", add_special_tokens=False)
    ids = tokenizer.encode("x")
    for start in range(len(ids)):
        if ids[start : start + len(plain)] == plain:
            return ids[:start]
    return []


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text to be continued: with leading special tokens, without EOS.

    The text may contain the special tokens already.
    """
    return _with_leading_tokens(
        tokenizer, tokenizer.encode(text, add_special_tokens=False, verbose=False)
    )


def _with_leading_tokens(tokenizer: Any, ids: list[int]) -> list[int]:
    leading = leading_special_tokens(tokenizer)
    return ids if ids[: len(leading)] == leading else leading + ids


def encode_for_generation(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the ids of a prompt; one that a chat template rendered has its special tokens."""
    if prompt.is_conversation:
        return tokenizer.encode(prompt.text, add_special_tokens=False, verbose=False)
    return encode_text(tokenizer, prompt.text)


def encode_answer(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt on its own, and those of the answer after it.

    Where a token would span the prompt's last and the answer's first characters, as `: B` is one in
    some vocabularies, the answer has its tokens after a line break.

    Raises:
        DataError: one of the two has no tokens, so that there is nothing to score or train on.
    """
    before, answer_ids = _split_ids(tokenizer, prompt, answer)
    return _with_leading_tokens(tokenizer, before), answer_ids


def _split_ids(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt and of the answer after it, without leading special tokens."""
    before = tokenizer.encode(prompt, add_special_tokens=False, verbose=False)
    both = tokenizer.encode(prompt + answer, add_special_tokens=False, verbose=False)
    answer_ids = both[len(before) :]
    if both[: len(before)] != before:
        answer_ids = _after_line_break(tokenizer, answer)
    if not before or not answer_ids:
        raise DataError(f"this tokenizer gives no token for {answer[:60]!r} after {prompt[-40:]!r}")
    return before, answer_ids


def _after_line_break(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text after a line break; on its own where one token spans both."""
    line_break = tokenizer.encode("\n", add_special_tokens=False)
    both = tokenizer.encode("\n" + text, add_special_tokens=False)
    if both[: len(line_break)] == line_break:
        return both[len(line_break) :]
    return tokenizer.encode(text, add_special_tokens=False)


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
    """Return the request for all options of a question, in their order.

    A conversation keeps the white space at its end, which belongs to the generation prompt.
    """
    split = _split_ids if prompt.is_conversation else encode_pair
    pairs = [
        split(tokenizer, prompt.text, continuation)
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
        tokens: ids of the tokens with a text, spaces around it aside, from `tokens_by_text`.

    Raises:
        DataError: no token of the vocabulary is one of the answers.
    """
    letters: list[str] = []
    continuations: list[list[int]] = []
    for letter, text in prompt.continuations.items():
        for token in tokens.get(text.strip(), []):
            letters.append(letter)
            continuations.append([token])
    missing = sorted(set(prompt.continuations) - set(letters))
    if missing:
        answers = ", ".join(prompt.continuations[letter] for letter in missing)
        raise DataError(f"the vocabulary has no token for the answers {answers!r}")
    return Request(encode_for_generation(tokenizer, prompt), continuations), letters


def answer_of_token(text: str, answers: Collection[str]) -> str | None:
    """Return the answer that a token's text stands for, ignoring spaces around it, or None.

    A single letter must have its case; a word may have any: `Yes` is the answer `yes`.
    """
    stripped = text.strip()
    if stripped in answers:
        return stripped
    if len(stripped) > 1 and stripped.lower() in answers:
        return stripped.lower()
    return None


def tokens_by_text(tokenizer: Any, texts: Collection[str]) -> dict[str, list[int]]:
    """Return for each text the ids of all tokens with this text, ignoring spaces around it.

    A single letter must have its case; a word may have any: `Yes` is the answer `yes`.
    """
    tokens: dict[str, list[int]] = {text: [] for text in texts}
    vocabulary = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    for token, text in enumerate(vocabulary):
        answer = answer_of_token(text, tokens)
        if answer is not None:
            tokens[answer].append(token)
    return tokens


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
    prefix = tokenizer.bos_token_id
    if prefix is None:
        prefix = tokenizer.eos_token_id
    if prefix is None:
        raise DataError(
            "this tokenizer has neither a BOS nor an EOS token to begin a document with; add one to"
            " its tokenizer_config.json"
        )
    return Request([prefix], [ids]), len(covered.encode())


def truncate_left(request: Request, length: int) -> Request:
    """Return the request with its prompt truncated on the left: no input exceeds `length` tokens.

    At least one token of the prompt remains.
    """
    excess = request.input_length - length
    if excess <= 0:
        return request
    start = min(excess, len(request.prompt) - 1)
    return Request(request.prompt[start:], request.continuations)
