"""Training samples: a record's token ids, with the loss on the answer alone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.backends import encoding
from evaluation.prompts.registry import LIKELIHOOD_TEMPLATES, get_template
from evaluation.question_sets.question import Question
from finetune.data import chat
from finetune.data.record import Conversation, PromptCompletion, Record
from galen.errors import DataError

IGNORE_INDEX = -100
"""Label of a token outside the loss, as in PyTorch's and Hugging Face's losses."""


@dataclass(frozen=True, slots=True)
class Item:
    """A record and, for a question, its prompt template (of evaluation/prompts/registry.py)."""

    record: Record
    template: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids and labels of one record."""

    tokens: list[int]
    labels: list[int]
    """One label per token: the token itself in an answer, `IGNORE_INDEX` elsewhere.

    The first is always ignored; at least one other is not.
    """

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def of(prompt: list[int], answer: list[int]) -> "Sample":
        """Return the sample of a prompt followed by an answer."""
        return Sample(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)

    @property
    def first_label(self) -> int:
        """Index of the first token in the loss."""
        for index, label in enumerate(self.labels):
            if label != IGNORE_INDEX:
                return index
        return len(self)


BLANK = Sample([0], [IGNORE_INDEX])
"""Sample without labels, which pads the last batch of an epoch."""


def encode(items: Sequence[Item], tokenizer: Any, max_length: int) -> tuple[list[Sample], int]:
    """Return a sample for each item, with a token in the loss, and how many were truncated.

    A question's context is truncated at its end, a prompt at its beginning; a conversation loses
    its oldest messages except a system message. If that is not enough, the answer of a completion
    or conversation is truncated at its end.

    Raises:
        UsageError: unknown template.
        DataError: some records have no room for one token of an answer; names how many.
    """
    samples: list[Sample] = []
    too_long: list[Item] = []
    truncated = 0
    for item in items:
        match record := item.record:
            case PromptCompletion():
                sample = _prompt_completion(record, tokenizer, max_length)
            case Conversation():
                sample = _conversation(record, tokenizer, max_length)
            case _:
                sample = _question(record, tokenizer, item.template, max_length)
        if sample is None:
            too_long.append(item)
        else:
            samples.append(sample[0])
            truncated += sample[1]
    if too_long:
        needed = max(_least_length(item, tokenizer) for item in too_long)
        raise DataError(
            f"{len(too_long)} of {len(items)} records are longer than data.max_length ="
            f" {max_length} tokens even when truncated, for example {too_long[0].record.id!r};"
            f" raise data.max_length to {needed} or more"
        )
    return samples, truncated


def _least_length(item: Item, tokenizer: Any) -> int:
    """Return the smallest `max_length` in which a record fits when truncated.

    It leaves a token of the answer, or the complete answer of a question.
    """
    match record := item.record:
        case PromptCompletion():
            return len(encoding.leading_special_tokens(tokenizer)) + 2
        case Conversation():
            first = 1 if record.messages[0]["role"] == "system" else 0
            last = max(
                index for index, message in enumerate(record.messages) if message["role"] == "user"
            )
            messages = [*record.messages[:first], *record.messages[last:]]
            return _chat(tokenizer, messages).first_label + 1
    return len(_encode_question(replace(record, context=""), tokenizer, item.template))


def split(items: Iterable[Item], fraction: float) -> tuple[list[Item], list[Item]]:
    """Return training and validation items, split by a hash of the id.

    Args:
        items: in any order.
        fraction: expected fraction of validation items.
    """
    train: list[Item] = []
    validation: list[Item] = []
    for item in items:
        digest = hashlib.sha256(item.record.id.encode()).digest()
        position = int.from_bytes(digest[:8]) / 2**64
        (validation if position < fraction else train).append(item)
    return train, validation


def _question(
    question: Question, tokenizer: Any, template: str, max_length: int
) -> tuple[Sample, bool] | None:
    """Return the sample, and whether its context was truncated: at its end, between words.

    Truncation may change the tokens at the boundary, so it is repeated until the sample fits.
    """
    sample = _encode_question(question, tokenizer, template)
    excess = len(sample) - max_length
    if excess <= 0:
        return sample, False
    encoded = tokenizer(question.context, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    num_tokens = len(ends)
    while num_tokens > 0 and excess > 0:
        num_tokens = max(num_tokens - excess, 0)
        context = question.context[: ends[num_tokens - 1]] if num_tokens else ""
        if question.context[len(context) : len(context) + 1].strip():  # within a word
            context = context[: context.rfind(" ") + 1]
        sample = _encode_question(replace(question, context=context.rstrip()), tokenizer, template)
        excess = len(sample) - max_length
        if excess <= 0:
            return sample, True
    return None


def _encode_question(question: Question, tokenizer: Any, template: str) -> Sample:
    """Return the sample of a question, with an end token after its answer.

    It is the chat format's or the end-of-sequence token. Templates whose options are compared by
    likelihood have none, and are tokenized as in `evaluation/`.
    """
    prompt = get_template(template)(question)
    if template in LIKELIHOOD_TEMPLATES:
        return Sample.of(*encoding.encode_pair(tokenizer, prompt.text, prompt.target))
    if prompt.text.startswith("<|im_start|>"):
        return _joined(tokenizer, prompt.text, prompt.target + "<|im_end|>")
    return _with_eos(_joined(tokenizer, prompt.text, prompt.target), tokenizer)


def _prompt_completion(
    pair: PromptCompletion, tokenizer: Any, max_length: int
) -> tuple[Sample, bool] | None:
    """Return the sample, with EOS after the completion, and whether it was truncated."""
    sample = _with_eos(_joined(tokenizer, pair.prompt, pair.completion), tokenizer)
    excess = len(sample) - max_length
    if excess <= 0:
        return sample, False
    first = len(encoding.leading_special_tokens(tokenizer))
    # at least one token of the prompt remains, to predict the answer from
    spare = min(excess, max(sample.first_label - first - 1, 0))
    tokens = sample.tokens[:first] + sample.tokens[first + spare :]
    labels = sample.labels[:first] + sample.labels[first + spare :]
    return _truncated(Sample(tokens, labels), max_length)


def _conversation(
    conversation: Conversation, tokenizer: Any, max_length: int
) -> tuple[Sample, bool] | None:
    """Return the sample of the last messages that fit, from a user's on.

    Also returns whether it was truncated.
    """
    messages = conversation.messages
    first = 1 if messages[0]["role"] == "system" else 0
    later = (
        number for number in range(first + 1, len(messages)) if messages[number]["role"] == "user"
    )
    for start in (first, *later):
        sample = _chat(tokenizer, [*messages[:first], *messages[start:]])
        if len(sample) <= max_length:
            return sample, start > first
    return _truncated(sample, max_length)


def _chat(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Sample:
    """Return the sample of messages; EOS ends a last answer without an end mark."""
    text, spans, marked = chat.answers(tokenizer, messages)
    if marked:
        return _labelled(tokenizer, text, spans)
    return _with_eos(_labelled(tokenizer, text[: spans[-1][1]], spans), tokenizer)


def _truncated(sample: Sample, max_length: int) -> tuple[Sample, bool] | None:
    """Return the sample truncated at its end, or None if no token of an answer is left."""
    if sample.first_label >= max_length:
        return None
    return Sample(sample.tokens[:max_length], sample.labels[:max_length]), True


def _joined(tokenizer: Any, prompt: str, answer: str) -> Sample:
    """Return the sample of a prompt and its answer.

    The prompt is tokenized separately, so that a model that answers it sees the same tokens. Its
    trailing spaces move to the answer: most vocabularies have tokens that begin with one.
    """
    stripped = prompt.rstrip(" ")
    answer = prompt[len(stripped) :] + answer
    return Sample.of(*encoding.encode_answer(tokenizer, stripped, answer))


def _with_eos(sample: Sample, tokenizer: Any) -> Sample:
    """Return the sample with EOS as its last label, if the tokenizer has one."""
    end = tokenizer.eos_token_id
    return sample if end is None else Sample([*sample.tokens, end], [*sample.labels, end])


def _labelled(tokenizer: Any, text: str, spans: list[tuple[int, int]]) -> Sample:
    """Return the sample of a text, with the tokens that overlap `spans` in the loss.

    Raises:
        DataError: no span has a token.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = encoded["input_ids"]
    labels = [IGNORE_INDEX] * len(tokens)
    remaining = list(reversed(spans))
    for index, (start, end) in enumerate(encoded["offset_mapping"]):
        while remaining and start >= remaining[-1][1]:
            remaining.pop()
        overlaps = bool(remaining) and end > remaining[-1][0] and end > start
        if overlaps and index > 0:
            labels[index] = tokens[index]
    if all(label == IGNORE_INDEX for label in labels):
        raise DataError(f"this tokenizer has no token for the answer at the end of {text[-60:]!r}")
    return Sample(tokens, labels)
