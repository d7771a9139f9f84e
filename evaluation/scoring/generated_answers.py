"""Generated answers to multiple-choice questions: requests, and scored samples from the texts."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evaluation.backends import encoding
from evaluation.backends.base import Backend, Batching
from evaluation.backends.encoding import Generated, GenerationRequest
from evaluation.backends.sampling import Sampling
from evaluation.chat_models import thinking, thinking_budget
from evaluation.chat_models.conversation import Conversation
from evaluation.chat_models.thinking_budget import ThinkingBudget
from evaluation.prompts import chat
from evaluation.prompts.template import Prompt
from evaluation.protocols.protocol import Protocol
from evaluation.question_sets.question import Question
from evaluation.scoring import answer_extraction
from evaluation.scoring.answer_extraction import Status
from evaluation.scoring.answer_extraction.thinking import strip_thinking
from evaluation.scoring.task_type import Job, Sample, sample_of

logger = logging.getLogger(__name__)


def job(
    name: str,
    questions: Sequence[Any],
    prompts: list[Prompt],
    protocol: Protocol,
    run: int,
    backend: Backend,
    conversation: Conversation,
    to_sample: Callable[..., Sample] | None = None,
) -> Job:
    """Return the job that generates an answer to each question, or several.

    Args:
        name: of the task.
        questions: what is asked, each with an `id`.
        prompts: of the questions.
        protocol: sampling, length, thinking.
        run: seed of the sampling.
        backend: the model.
        conversation: how it is asked.
        to_sample: with the signature of `generation_sample`, its default.
    """
    to_sample = to_sample or generation_sample
    requests, truncated = _requests(name, questions, prompts, protocol, run, backend, conversation)
    starts_open = [conversation.starts_open(prompt) for prompt in prompts]

    def build(index: int, outputs: list[Generated]) -> Sample:
        return to_sample(questions[index], protocol, outputs, conversation, starts_open[index])

    ask: Callable[..., Iterator[list[Any]]] = backend.generate
    markers = conversation.markers if conversation.has_thinking else None
    if protocol.thinking_budget is not None and markers is not None:
        cue = chat.FORMATS[protocol.answer_format].cue if protocol.budget_forcing else ""
        budget = ThinkingBudget(protocol.thinking_budget, markers, cue)
        ask = functools.partial(
            _ask_with_budget, backend=backend, budget=budget, starts_open=starts_open
        )
    texts = [prompt.text for prompt in prompts]
    return Job(ask, requests, build, texts, truncated=truncated)


def _ask_with_budget(
    requests: Sequence[GenerationRequest],
    batching: Batching,
    *,
    backend: Backend,
    budget: ThinkingBudget,
    starts_open: Sequence[bool],
) -> Iterator[list[Any]]:
    return thinking_budget.generate(backend, requests, batching, budget, starts_open)


def generation_sample(
    question: Question,
    protocol: Protocol,
    outputs: list[Generated],
    conversation: Conversation | None = None,
    starts_open: bool = False,
) -> Sample:
    """Return a question's sample from generated texts: the majority of the parsed answers.

    Args:
        question: the question.
        protocol: its answer extraction.
        outputs: the answers.
        conversation: how the model was asked; None for a model without thinking.
        starts_open: whether the prompt already opened the thinking.
    """
    answers, thinking_counts = without_thinking(outputs, protocol, conversation, starts_open)
    # a question of one's own shows by its answer that several may be right
    allows_several = question.allows_several or len(question.answers) > 1
    read = [
        answer_extraction.read(_final_answer(text), question.options, allows_several=allows_several)
        for text in answers
    ]
    prediction = answer_extraction.majority([item.letters for item in read])
    sample = sample_of(question, ",".join(prediction) if prediction else None)
    sample["outputs"] = [output.text for output in outputs]
    sample["extracted_answers"] = [
        ",".join(item.letters) if item.letters else None for item in read
    ]
    sample["num_tokens"] = [output.num_tokens for output in outputs]
    sample["reached_limit"] = [not output.finished for output in outputs]
    sample["truncated_thinking"] = [item.status == Status.TRUNCATED_THINKING for item in read]
    sample |= thinking_counts
    if protocol.strict_match:
        extract = answer_extraction.STRICT_EXTRACTORS[protocol.strict_match]
        strict = answer_extraction.majority([extract(text, question.options) for text in answers])
        answer = ",".join(strict) if strict else None
        sample["strict_match"] = answer
        sample["correct_strict_match"] = answer == question.answer
    if question.rationale_checked:
        sample["rationale"] = question.rationale
    return sample


def greedy(protocol: Protocol) -> Protocol:
    """Return a protocol that does not generate as one that generates by greedy decoding."""
    return dataclasses.replace(
        protocol,
        scoring="generation",
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        num_samples=1,
    )


def without_thinking(
    outputs: list[Generated],
    protocol: Protocol,
    conversation: Conversation | None,
    starts_open: bool,
) -> tuple[list[str], Sample]:
    """Return the answers after the thinking, and the sample's keys about it."""
    texts = [output.text for output in outputs]
    if conversation is None or conversation.markers is None:
        return texts, {}
    splits = [thinking.split(text, conversation.markers, starts_open) for text in texts]
    answers = [_before_stop(split.answer, protocol.stop) for split in splits]
    counts: Sample = {"truncated_thinking": [split.is_cut_off for split in splits]}
    if all(output.ids or not output.num_tokens for output in outputs):
        # without ids the tokenizer is not the model's, as at an endpoint
        encode = conversation.tokenizer.encode
        counts["num_thinking_tokens"] = [
            len(encode(split.thinking, add_special_tokens=False)) for split in splits
        ]
    if protocol.budget_forcing:
        counts["forced"] = [output.is_forced for output in outputs]
    return answers, counts


def _before_stop(text: str, stops: tuple[str, ...]) -> str:
    """Return an answer up to the first stop string: within thinking they stop nothing."""
    for stop in stops:
        text = text.split(stop)[0]
    return text


def _final_answer(text: str) -> str:
    """Return the text after the first `###Answer:` outside of thinking, or all of it without one.

    In MMedBench's template the rationale comes before it. Later ones belong to questions that the
    model continues with.
    """
    if "###Answer:" not in text:
        return text
    visible, _ = strip_thinking(text)
    _, marker, answer = visible.partition("###Answer:")
    return answer.partition("###Answer:")[0] if marker else text


def _requests(
    name: str,
    questions: Sequence[Any],
    prompts: list[Prompt],
    protocol: Protocol,
    run: int,
    backend: Backend,
    conversation: Conversation,
) -> tuple[list[GenerationRequest], frozenset[int]]:
    """Return the requests for answers, and the indices of truncated prompts; warns of these."""
    length = backend.context_length
    budget = protocol.thinking_budget if conversation.has_thinking else None
    requests = []
    truncated: set[int] = set()
    for index, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
        ids = encoding.encode_for_generation(backend.tokenizer, prompt)
        longest = protocol.max_new_tokens
        if length is not None:
            # a prompt is truncated on the left only where it leaves less than a quarter of the
            # context to the answer
            reserved = max(min(longest + (budget or 0), length // 4), 1)
            if len(ids) > length - reserved:
                truncated.add(index)
            ids = ids[-(length - reserved) :]
            available = length - len(ids)
            longest = min(longest, max(available - (budget or 0), available // 4))
        seeds = tuple(f"{run}\n{question.id}\n{number}" for number in range(protocol.num_samples))
        request = GenerationRequest(
            ids,
            max(longest, 1),
            () if conversation.has_thinking else protocol.stop,
            _sampling(protocol),
            seeds,
        )
        if protocol.guided_decoding:
            schema = chat.json_schema(question)
            request = dataclasses.replace(request, json_schema=schema)
        requests.append(request)
    if truncated:
        logger.warning(
            f"{name}: {len(truncated)} of {len(requests)} prompts leave no room for an answer"
            f" within {length} tokens; truncated on the left"
        )
    return requests, frozenset(truncated)


def _sampling(protocol: Protocol) -> Sampling:
    """Return the sampling settings of a protocol whose model's own are resolved."""
    assert protocol.temperature is not None
    assert protocol.top_p is not None
    assert protocol.top_k is not None
    assert protocol.repetition_penalty is not None
    return Sampling(
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        top_k=protocol.top_k,
        repetition_penalty=protocol.repetition_penalty,
    )
