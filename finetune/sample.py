"""Training samples: token ids of prompt and right answer, with the loss on the answer alone."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation import encoding, prompts
from evaluation.question import Question
from galen.errors import DataError

IGNORED = -100
"""Label of a token that has no part in the loss, as in PyTorch's and Hugging Face's losses."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question as the model is trained on it."""

    prompt: list[int]
    answer: list[int]
    """Ids of what is to be answered, at least one."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def labels(self) -> list[int]:
        """One label a token: the token itself in the answer, `IGNORED` in the prompt."""
        return [IGNORED] * len(self.prompt) + self.answer


def encode(questions: Sequence[Question], tokenizer: Any, protocol: str, max_length: int) -> tuple[list[Sample], int]:
    """Return a sample for each question, and how many had their context cut to fit.

    Raises:
        UsageError: unknown protocol.
        DataError: some questions are longer than `max_length` even without context.
    """
    form = prompts.form(protocol)
    samples, hopeless, cut = [], [], 0
    for question in questions:
        sample = _sample(question, tokenizer, form)
        if len(sample) > max_length:
            cut += 1
            shorter = _fitted(question, tokenizer, form, len(sample) - max_length, max_length)
            if shorter is None:
                hopeless.append(question.id)
                continue
            sample = shorter
        samples.append(sample)
    if hopeless:
        raise DataError(
            f"{len(hopeless)} of {len(questions)} questions are longer than data.max_length = {max_length} tokens even without "
            f"their context, for example {hopeless[0]!r}; raise data.max_length"
        )
    return samples, cut


def split(questions: Iterable[Question], share: float) -> tuple[list[Question], list[Question]]:
    """Return training and validation questions; a hash of the id alone decides, so that the split outlasts any reordering."""
    train: list[Question] = []
    validation: list[Question] = []
    for question in questions:
        place = int.from_bytes(hashlib.sha256(question.id.encode()).digest()[:8]) / 2**64
        (validation if place < share else train).append(question)
    return train, validation


def _sample(question: Question, tokenizer: Any, form: prompts.Form) -> Sample:
    prompt = form(question)
    return Sample(*encoding.encode_pair(tokenizer, prompt.text, prompt.continuations[question.answer]))


def _fitted(question: Question, tokenizer: Any, form: prompts.Form, excess: int, max_length: int) -> Sample | None:
    """Return the sample with the context cut at its end, between words, or None when not even the bare question fits.

    Cutting may change the tokens at the seam, so the first guess, to leave away `excess` tokens, is checked and mended.
    """
    ends = [end for _, end in tokenizer(question.context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
    kept = len(ends)
    while kept > 0 and excess > 0:
        kept = max(kept - excess, 0)
        context = question.context[: ends[kept - 1]] if kept else ""
        if question.context[len(context) : len(context) + 1].strip():  # the cut goes through a word
            context = context[: context.rfind(" ") + 1]
        sample = _sample(replace(question, context=context.rstrip()), tokenizer, form)
        excess = len(sample) - max_length
        if excess <= 0:
            return sample
    return None
