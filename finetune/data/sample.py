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
"""Label of a token that has no part in the loss, as in PyTorch's and Hugging Face's losses."""


@dataclass(frozen=True, slots=True)
class Item:
    """A record and, for a question, its prompt template (of evaluation/prompts/registry.py)."""

    record: Record
    template: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One record as the model is trained on it."""

    tokens: list[int]
    labels: list[int]
    """One label a token: the token itself in an answer, `IGNORE_INDEX` elsewhere.

    The first is always ignored, some other never.
    """

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def of(prompt: list[int], answer: list[int]) -> "Sample":
        """Return the sample of a prompt and one answer behind it."""
        return Sample(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)

    @property
    def first_label(self) -> int:
        """Place of the first token in the loss."""
        return next(
            (place for place, label in enumerate(self.labels) if label != IGNORE_INDEX), len(self)
        )


BLANK = Sample([0], [IGNORE_INDEX])
"""Nothing to learn: fills up the last batch of an epoch."""


def encode(items: Sequence[Item], tokenizer: Any, max_length: int) -> tuple[list[Sample], int]:
    """Return a sample for each item, with a token in the loss, and how many were truncated.

    A question's context is cut at its end, a pair's prompt at its beginning; a conversation loses
    its oldest messages but for a system message. Where that is not enough, a pair's or a
    conversation's answer is cut at its end.

    Raises:
        UsageError: unknown template.
        DataError: some records have no room for one token of an answer; names how many.
    """
    samples: list[Sample] = []
    hopeless: list[Item] = []
    cut = 0
    for item in items:
        match record := item.record:
            case PromptCompletion():
                sample = _prompt_completion(record, tokenizer, max_length)
            case Conversation():
                sample = _conversation(record, tokenizer, max_length)
            case _:
                sample = _question(record, tokenizer, item.template, max_length)
        if sample is None:
            hopeless.append(item)
        else:
            samples.append(sample[0])
            cut += sample[1]
    if hopeless:
        needed = max(_least_length(item, tokenizer) for item in hopeless)
        raise DataError(
            f"{len(hopeless)} of {len(items)} records are longer than data.max_length ="
            f" {max_length} tokens even without what may be cut, for example"
            f" {hopeless[0].record.id!r}; raise data.max_length to {needed} at least"
        )
    return samples, cut


def _least_length(item: Item, tokenizer: Any) -> int:
    """Return the least `max_length` that leaves a too long record room for a token of its answer.

    Of a question, for all of its answer.
    """
    match record := item.record:
        case PromptCompletion():
            return len(encoding.leading_special_tokens(tokenizer)) + 2
        case Conversation():
            first = 1 if record.messages[0]["role"] == "system" else 0
            last = max(
                number
                for number, message in enumerate(record.messages)
                if message["role"] == "user"
            )
            return (
                _chat(tokenizer, [*record.messages[:first], *record.messages[last:]]).first_label
                + 1
            )
    return len(_whole_question(replace(record, context=""), tokenizer, item.template))


def split(items: Iterable[Item], share: float) -> tuple[list[Item], list[Item]]:
    """Return training and validation items, split by a hash of the id, in any order the same."""
    train: list[Item] = []
    validation: list[Item] = []
    for item in items:
        place = int.from_bytes(hashlib.sha256(item.record.id.encode()).digest()[:8]) / 2**64
        (validation if place < share else train).append(item)
    return train, validation


def _question(
    question: Question, tokenizer: Any, template: str, max_length: int
) -> tuple[Sample, bool] | None:
    """Return the sample, and whether its context was cut: at its end, between words.

    Cutting may change the tokens at the seam, so the first guess, to leave away what is too much,
    is checked and mended.
    """
    sample = _whole_question(question, tokenizer, template)
    excess = len(sample) - max_length
    if excess <= 0:
        return sample, False
    ends = [
        end
        for _, end in tokenizer(
            question.context, add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
    ]
    kept = len(ends)
    while kept > 0 and excess > 0:
        kept = max(kept - excess, 0)
        context = question.context[: ends[kept - 1]] if kept else ""
        if question.context[len(context) : len(context) + 1].strip():  # the cut goes through a word
            context = context[: context.rfind(" ") + 1]
        sample = _whole_question(replace(question, context=context.rstrip()), tokenizer, template)
        excess = len(sample) - max_length
        if excess <= 0:
            return sample, True
    return None


def _whole_question(question: Question, tokenizer: Any, template: str) -> Sample:
    """Return the sample of a question, its answer ended by a chat's mark or the end of sequence.

    So it ends when a model writes it.

    Forms whose options are compared by likelihood have no end, and are tokenised as `evaluation/`
    does it for that.
    """
    prompt = get_template(template)(question)
    if template in LIKELIHOOD_TEMPLATES:
        return Sample.of(*encoding.encode_pair(tokenizer, prompt.text, prompt.target))
    if prompt.text.startswith("<|im_start|>"):
        return _joined(tokenizer, prompt.text, prompt.target + "<|im_end|>")
    return _ended(_joined(tokenizer, prompt.text, prompt.target), tokenizer)


def _prompt_completion(
    pair: PromptCompletion, tokenizer: Any, max_length: int
) -> tuple[Sample, bool] | None:
    """Return the sample, with EOS after the completion, and whether it was truncated."""
    sample = _ended(_joined(tokenizer, pair.prompt, pair.completion), tokenizer)
    excess = len(sample) - max_length
    if excess <= 0:
        return sample, False
    first = len(encoding.leading_special_tokens(tokenizer))
    # at least one token of the prompt stays, to predict from
    spare = min(excess, max(sample.first_label - first - 1, 0))
    tokens = sample.tokens[:first] + sample.tokens[first + spare :]
    labels = sample.labels[:first] + sample.labels[first + spare :]
    return _shortened(Sample(tokens, labels), max_length)


def _conversation(
    conversation: Conversation, tokenizer: Any, max_length: int
) -> tuple[Sample, bool] | None:
    """Return the sample of the last messages that fit, from a user's on, and whether it was cut."""
    messages = conversation.messages
    first = 1 if messages[0]["role"] == "system" else 0
    later = (
        number for number in range(first + 1, len(messages)) if messages[number]["role"] == "user"
    )
    for start in (first, *later):
        sample = _chat(tokenizer, [*messages[:first], *messages[start:]])
        if len(sample) <= max_length:
            return sample, start > first
    return _shortened(sample, max_length)


def _chat(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Sample:
    """Return the sample of messages; EOS ends a last answer without an end mark."""
    text, spans, marked = chat.answers(tokenizer, messages)
    if marked:
        return _labelled(tokenizer, text, spans)
    return _ended(_labelled(tokenizer, text[: spans[-1][1]], spans), tokenizer)


def _shortened(sample: Sample, max_length: int) -> tuple[Sample, bool] | None:
    """Return the sample cut at its end, or None when no token of an answer is left."""
    if sample.first_label >= max_length:
        return None
    return Sample(sample.tokens[:max_length], sample.labels[:max_length]), True


def _joined(tokenizer: Any, prompt: str, answer: str) -> Sample:
    """Return the sample of a prompt, tokenized as if alone, and its answer.

    So a model that answers it sees the same tokens.

    Spaces at its end go to the answer: most vocabularies have tokens that begin with one.
    """
    stripped = prompt.rstrip(" ")
    answer = prompt[len(stripped) :] + answer
    return Sample.of(*encoding.encode_answer(tokenizer, stripped, answer))


def _ended(sample: Sample, tokenizer: Any) -> Sample:
    """Return the sample with EOS as its last label, where the tokenizer has one."""
    end = tokenizer.eos_token_id
    return sample if end is None else Sample([*sample.tokens, end], [*sample.labels, end])


def _labelled(tokenizer: Any, text: str, spans: list[tuple[int, int]]) -> Sample:
    """Return the sample of a text, with the tokens that overlap `spans` in the loss.

    Raises:
        DataError: no span has a token.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    labels, place = [IGNORE_INDEX] * len(encoded["input_ids"]), 0
    for number, (token, (start, end)) in enumerate(
        zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ):
        while place < len(spans) and start >= spans[place][1]:
            place += 1
        if place < len(spans) and end > spans[place][0] and end > start and number > 0:
            labels[number] = token
    if all(label == IGNORE_INDEX for label in labels):
        raise DataError(
            f"this tokenizer gives no token for the answer at the end of {text[-60:]!r}"
        )
    return Sample(encoded["input_ids"], labels)
