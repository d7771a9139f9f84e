"""Generation with a budget for thinking, in two passes of the same backend.

The first pass generates as many tokens as the budget. An answer whose thinking is closed by then is
continued; thinking that is not is cut off, or with budget forcing (Muennighoff et al. 2025,
arXiv 2501.19393) closed, and the model continues a cue that asks for the answer.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.backends.base import Backend, Batching
from evaluation.backends.encoding import Generated, GenerationRequest
from evaluation.chat_models import thinking
from evaluation.chat_models.thinking import Markers


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """How long a model may think."""

    tokens: int
    markers: Markers
    cue: str = ""
    """Follows the closing marker when thinking is cut off; "" leaves it cut off."""


@dataclass(frozen=True, slots=True)
class _Continuation:
    """An answer that the second pass continues."""

    request: int
    """Index of its request in the batch."""
    seed: int
    first: Generated
    written: str
    """What Galen wrote after the first pass; "" where the model goes on."""


def generate(
    backend: Backend,
    requests: Sequence[GenerationRequest],
    batching: Batching,
    budget: ThinkingBudget,
    starts_open: Sequence[bool],
) -> Iterator[list[tuple[int, list[Generated]]]]:
    """Yield each request's index and its answers, one per seed.

    Args:
        backend: of the model; its answers must have their ids.
        requests: `max_new_tokens` is the limit of the answer after the thinking.
        batching: how the requests are grouped.
        budget: of the thinking.
        starts_open: whether each prompt ends within the thinking.
    """
    first = []
    num_written = len(backend.tokenizer.encode(_forcing(budget), add_special_tokens=False))
    for request in requests:
        limit = budget.tokens
        if backend.context_length is not None:
            reserved = len(request.prompt) + num_written + request.max_new_tokens
            limit = max(min(limit, backend.context_length - reserved), 1)
        first.append(dataclasses.replace(request, max_new_tokens=limit, stop=()))
    for batch in backend.generate(first, batching):
        yield _second_pass(backend, requests, batching, budget, starts_open, batch)


def _second_pass(
    backend: Backend,
    requests: Sequence[GenerationRequest],
    batching: Batching,
    budget: ThinkingBudget,
    starts_open: Sequence[bool],
    batch: list[tuple[int, list[Generated]]],
) -> list[tuple[int, list[Generated]]]:
    """Return the answers of a batch after the first pass, continued where they have not ended."""
    continuations: list[_Continuation] = []
    further: list[GenerationRequest] = []
    for position, (index, answers) in enumerate(batch):
        for seed, answer in enumerate(answers):
            written = _written(answer, budget, starts_open[index])
            if answer.finished or written is None:
                continue
            request = _continued(
                backend, requests[index], answer, written, seed, budget, starts_open[index]
            )
            if request.max_new_tokens > 0:
                further.append(request)
                continuations.append(_Continuation(position, seed, answer, written))
    results = [(index, list(answers)) for index, answers in batch]
    if not further:
        return results
    for second_batch in backend.generate(further, Batching(batching.max_tokens)):
        for number, [second] in second_batch:
            item = continuations[number]
            results[item.request][1][item.seed] = _joined(item, second)
    return results


def _continued(
    backend: Backend,
    request: GenerationRequest,
    answer: Generated,
    written: str,
    seed: int,
    budget: ThinkingBudget,
    starts_open: bool,
) -> GenerationRequest:
    """Return the request that continues an answer; its limit is what the answer has left."""
    written_ids = backend.tokenizer.encode(written, add_special_tokens=False)
    prompt = [*request.prompt, *answer.ids, *written_ids]
    limit = request.max_new_tokens
    if not written:
        begun = thinking.split(answer.text, budget.markers, starts_open).answer
        limit -= len(backend.tokenizer.encode(begun, add_special_tokens=False))
    if backend.context_length is not None:
        limit = min(limit, backend.context_length - len(prompt))
    return dataclasses.replace(
        request,
        prompt=prompt,
        max_new_tokens=limit,
        stop=(),
        seeds=(f"{request.seeds[seed]}\nanswer",),
    )


def _written(answer: Generated, budget: ThinkingBudget, starts_open: bool) -> str | None:
    """Return what closes the thinking: "" where it is closed, None where it stays cut off."""
    if not thinking.split(answer.text, budget.markers, starts_open).is_cut_off:
        return ""
    return _forcing(budget) or None


def _forcing(budget: ThinkingBudget) -> str:
    """Return what closes the thinking and asks for the answer; "" without budget forcing."""
    if not budget.cue:
        return ""
    return f"\n{budget.markers.closes_with or budget.markers.closing}\n\n{budget.cue}"


def _joined(item: _Continuation, second: Generated) -> Generated:
    """Return an answer of both passes; what Galen wrote is in its text, not in its tokens."""
    return Generated(
        item.first.text + item.written + second.text,
        item.first.num_tokens + second.num_tokens,
        second.finished,
        (*item.first.ids, *second.ids),
        is_forced=bool(item.written),
    )
