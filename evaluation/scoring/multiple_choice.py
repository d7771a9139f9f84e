"""Multiple choice: from questions and a protocol to requests, and from replies to scored items."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.backends import encoding
from evaluation.backends.base import Backend
from evaluation.prompts.registry import form
from evaluation.prompts.template import Prompt
from evaluation.protocols.few_shot import Shots
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets.question import Question
from evaluation.scoring import answer_extraction
from galen.errors import DataError

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of a model for one task in one run, and how its replies become items."""

    ask: Callable[..., Iterator[list[Any]]]
    """The method of the backend that replies."""
    requests: list[Any]
    build: Callable[..., Item]
    """`build(place, *reply)` gives the scored item of the question at a place."""
    prompts: list[str]
    """The text of each prompt, for the record."""


def job(
    name: str,
    questions: list[Question],
    shots: Shots,
    protocol: Protocol,
    run: int,
    backend: Backend,
) -> Job:
    """Return the job of one run: prompts written and encoded.

    Raises:
        DataError: the tokenizer has no tokens for an answer.
    """
    put = form(protocol.form)
    prompts = [put(item, shots.get(item.subject) or shots[""]) for item in questions]
    texts = [prompt.text for prompt in prompts]
    if protocol.scoring == "generation":
        return Job(
            backend.generate, *_generation(name, questions, prompts, protocol, run, backend), texts
        )
    if protocol.scoring == "letter":
        return Job(backend.next_tokens, *_letters(name, questions, prompts, backend), texts)
    requests = _cut(
        name,
        [encoding.encode_prompt(backend.tokenizer, prompt) for prompt in prompts],
        backend.context_length,
    )
    return Job(
        backend.log_likelihoods,
        requests,
        lambda place, values: likelihood_item(questions[place], prompts[place], protocol, values),
        texts,
    )


def likelihood_item(
    item: Question, prompt: Prompt, protocol: Protocol, values: list[float]
) -> Item:
    """Return a question's item from its options' log-likelihoods (nats); ties go to the first."""
    logprobs = dict(zip(item.options, finite(values, f"question {item.id}"), strict=True))
    sizes = {
        letter: len(text.removeprefix(" ").encode()) or 1
        for letter, text in prompt.continuations.items()
    }
    prediction = max(logprobs, key=lambda letter: logprobs[letter])
    per_byte = max(logprobs, key=lambda letter: logprobs[letter] / sizes[letter])
    chosen = per_byte if protocol.per_byte else prediction
    found = _item(item, chosen) | {"logprobs": logprobs}
    if len(set(sizes.values())) > 1:
        found |= {"correct_per_byte": per_byte == item.answer}
    return found


def letter_item(
    item: Question,
    letters: Sequence[str],
    values: list[float],
    top: int,
    tokens: list[int],
    shown: str,
) -> Item:
    """Return a question's item from its next token.

    By the published rule the answer is the top token of the vocabulary.

    Args:
        item: the question.
        letters: the option that each value stands for; an option's value is that of its likeliest
            token.
        values: log-probability of each token.
        top: the likeliest token of the vocabulary.
        tokens: the token of each value.
        shown: the likeliest token as text.
    """
    logprobs: dict[str, float] = {}
    for letter, value in zip(letters, finite(values, f"question {item.id}"), strict=True):
        logprobs[letter] = max(value, logprobs.get(letter, value))
    logprobs = {letter: logprobs[letter] for letter in item.options}
    likeliest = max(logprobs, key=lambda letter: logprobs[letter])
    read = next(
        (letter for token, letter in zip(tokens, letters, strict=True) if token == top), None
    )
    return _item(item, read) | {
        "logprobs": logprobs,
        "top": shown,
        "argmax": likeliest,
        "correct_argmax": likeliest == item.answer,
    }


def generation_item(item: Question, protocol: Protocol, outputs: list[str]) -> Item:
    """Return a question's item from generated texts, one a branch: the readable majority."""
    readings = [answer_extraction.read(_answer_part(text), item.options) for text in outputs]
    prediction = answer_extraction.majority(readings)
    found = _item(item, ",".join(prediction) if prediction else None)
    found |= {
        "outputs": outputs,
        "readings": [",".join(reading) if reading else None for reading in readings],
    }
    if protocol.legacy:
        strict = [answer_extraction.LEGACY[protocol.legacy](text, item.options) for text in outputs]
        legacy = answer_extraction.majority(strict)
        found |= {
            "legacy": ",".join(legacy) if legacy else None,
            "correct_legacy": legacy is not None and ",".join(legacy) == item.answer,
        }
    if item.rationale_checked:
        found |= {"rationale": item.rationale}
    return found


def _answer_part(text: str) -> str:
    """Return the text after the first `###Answer:`, or all of it without one.

    In MMedBench's form the rationale comes before it.

    Further ones belong to questions that the model goes on with.
    """
    return text.split("###Answer:")[1] if "###Answer:" in text else text


def _item(item: Question, prediction: str | None) -> Item:
    found: Item = {
        "id": item.id,
        "answer": item.answer,
        "prediction": prediction,
        "correct": prediction == item.answer,
    }
    found |= {
        key: value
        for key in ("subject", "language")
        if (value := getattr(item, key)) not in ("", "en")
    }
    if "," in item.answer:
        chosen = frozenset(prediction.split(",")) if prediction else frozenset()
        found["credit"] = len(chosen & item.answers) / len(chosen | item.answers)
    return found


def _letters(
    name: str, questions: list[Question], prompts: list[Prompt], backend: Backend
) -> tuple[list[encoding.Request], Callable[..., Item]]:
    texts = {text.strip() for prompt in prompts for text in prompt.continuations.values()}
    tokens = encoding.tokens_by_text(backend.tokenizer, texts)
    pairs = [encoding.encode_letters(backend.tokenizer, prompt, tokens) for prompt in prompts]
    requests = _cut(name, [request for request, _ in pairs], backend.context_length)

    def build(place: int, values: list[float], top: int) -> Item:
        ids = [continuation[0] for continuation in requests[place].continuations]
        return letter_item(
            questions[place], pairs[place][1], values, top, ids, backend.tokenizer.decode([top])
        )

    return requests, build


def _generation(
    name: str,
    questions: list[Question],
    prompts: list[Prompt],
    protocol: Protocol,
    run: int,
    backend: Backend,
) -> tuple[list[encoding.GenerationRequest], Callable[..., Item]]:
    length, requests, cut = backend.context_length, [], 0
    for item, prompt in zip(questions, prompts, strict=True):
        ids = encoding.encode_text(backend.tokenizer, prompt.text)
        longest = protocol.max_new_tokens
        if length is not None:
            # as much of the answer as fits; a prompt that leaves less than a quarter of it loses
            # its beginning
            room = max(min(longest, length // 4), 1)
            cut += len(ids) > length - room
            ids = ids[-(length - room) :]
            longest = min(longest, length - len(ids))
        seeds = tuple(f"{run}\n{item.id}\n{branch}" for branch in range(protocol.branches))
        requests.append(
            encoding.GenerationRequest(ids, longest, protocol.stop, protocol.temperature, seeds)
        )
    if cut:
        print(
            f"{name}: {cut} of {len(requests)} prompts leave no room for an answer within {length}"
            " tokens; their beginning is cut"
        )
    return requests, lambda place, outputs: generation_item(questions[place], protocol, outputs)


def _cut(name: str, requests: list[encoding.Request], length: int | None) -> list[encoding.Request]:
    if length is None:
        return requests
    too_long = sum(request.input_length > length for request in requests)
    if too_long:
        print(
            f"{name}: {too_long} of {len(requests)} prompts are longer than the model's {length}"
            " tokens; their beginning is cut"
        )
    return [encoding.cut(request, length) for request in requests]


def finite(values: list[float], of: str) -> list[float]:
    """Return log-likelihoods as they are.

    Raises:
        DataError: one is infinite or not a number; `of` tells of what.
    """
    if not all(math.isfinite(value) for value in values):
        raise DataError(
            f"{of}: the model gives a log-likelihood that is not a number; its weights are damaged,"
            " or try --dtype float32"
        )
    return values
