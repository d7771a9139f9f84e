"""Batched text generation with a `ModelRunner`: a token a step for each sequence until it ends."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.backends import growing_cache
from evaluation.backends.encoding import Generated, GenerationRequest
from evaluation.backends.model_runner import ModelRunner, Prefix, cache_of
from evaluation.backends.sampling import Sampling
from galen.errors import UsageError

_STOP_WINDOW = 12
"""Last tokens in which a stop string is searched after each step; the longest has three letters."""
_CHAT_END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "</s>",
    "<end_of_turn>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|assistant_end|>",  # Apertus
)


@dataclass(slots=True)
class _Sequence:
    """One answer that is being generated."""

    request: GenerationRequest
    index: int
    """The request's index in the batch."""
    generator: np.random.Generator
    ids: list[int] = field(default_factory=list)
    """Generated tokens."""


@torch.inference_mode()
def run(
    runner: ModelRunner, requests: list[GenerationRequest], prefix: Prefix
) -> list[list[Generated]]:
    """Return the answers of the requests of one batch, one per seed.

    Random numbers belong to a sample and its step, not to the batch, so that the same sample draws
    the same ones in any batch.

    Args:
        runner: the model.
        requests: the batch.
        prefix: what all prompts begin with.
    """
    # p: prompts, r: sequences that are not finished, s: positions, v: vocabulary
    output, mask_ps = runner.prefill([request.prompt for request in requests], prefix)
    cache = cache_of(output)
    if cache is None:
        raise UsageError(
            "written answers need a model that keeps keys and values; this one has other states:"
            " score it by likelihoods"
        )
    end_ids = end_token_ids(runner.tokenizer, _configured_end_ids(runner.model))
    sequences = _sequences(requests)
    active = sequences
    rows = torch.tensor([sequence.index for sequence in active])
    if len(active) != len(requests):
        cache.batch_select_indices(rows.to(runner.device))
    growing_cache.with_room(cache)
    logits_rv = output.logits[rows.to(runner.device), -1]
    mask_rs = mask_ps[rows]
    while True:
        _append_tokens(active, logits_rv)
        unfinished = [
            row
            for row, sequence in enumerate(active)
            if not _is_finished(runner.tokenizer, sequence, end_ids)
        ]
        if not unfinished:
            break
        if len(unfinished) < len(active):
            rows = torch.tensor(unfinished)
            cache.batch_select_indices(rows.to(runner.device))
            mask_rs = mask_rs[rows]
            active = [active[row] for row in unfinished]
        mask_rs = torch.cat([mask_rs, torch.ones((len(active), 1), dtype=torch.long)], dim=1)
        logits_rv = _next_logits(runner, active, mask_rs, cache)
    answers: list[list[Generated]] = [[] for _ in requests]
    for sequence in sequences:
        generated = answer(runner.tokenizer, sequence.ids, sequence.request, end_ids)
        answers[sequence.index].append(generated)
    return answers


def end_token_ids(tokenizer: Any, configured: int | Iterable[int] | None) -> frozenset[int]:
    """Return the ids that end an answer.

    End tokens of the model, of the tokenizer, and of the usual chat templates.
    """
    ids = set(configured) if isinstance(configured, Iterable) else {configured}
    ids.add(tokenizer.eos_token_id)
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[token] for token in _CHAT_END_TOKENS if token in vocabulary}
    return frozenset(id_ for id_ in ids if id_ is not None)


def answer(
    tokenizer: Any, ids: list[int], request: GenerationRequest, end_ids: frozenset[int]
) -> Generated:
    """Return generated tokens as an answer: without the end token, up to the first stop string."""
    has_ended = ids[-1] in end_ids
    full_text = tokenizer.decode(ids[:-1] if has_ended else ids, skip_special_tokens=False)
    text = full_text
    for stop in request.stop:
        text = text.split(stop)[0]
    return Generated(text, len(ids), has_ended or text != full_text, tuple(ids))


def _configured_end_ids(model: Any) -> int | Iterable[int] | None:
    """Return the end tokens in the model's generation_config.json, None if it has none."""
    config = getattr(model, "generation_config", None)
    return getattr(config, "eos_token_id", None)


def _sequences(requests: list[GenerationRequest]) -> list[_Sequence]:
    """Return a sequence for each seed of each request, in order."""
    sequences = []
    for index, request in enumerate(requests):
        for seed in request.seeds:
            digest = hashlib.sha256(seed.encode()).digest()
            generator = np.random.default_rng(int.from_bytes(digest[:16]))
            sequences.append(_Sequence(request, index, generator))
    return sequences


def _next_logits(
    runner: ModelRunner, active: list[_Sequence], mask_rs: Tensor, cache: Any
) -> Tensor:
    """Return the logits after the last token of each sequence, (rows, vocabulary).

    Args:
        runner: the model.
        active: the sequences, one a row.
        mask_rs: 1 for tokens, 0 for padding on the left; (rows, positions with the last token).
        cache: keys and values of all tokens but the last; extended by it.
    """
    tokens_r1 = torch.tensor([[sequence.ids[-1]] for sequence in active])
    positions_r1 = mask_rs.sum(1, keepdim=True) - 1
    output = runner.forward(tokens_r1, mask_rs, positions_r1, cache, use_cache=True)
    return output.logits[:, -1]


def _append_tokens(active: list[_Sequence], logits_rv: Tensor) -> None:
    """Append the next token to each sequence.

    At temperature 0 the most likely one; else one drawn with one uniform random number.
    """
    logits_rv = _penalized(active, logits_rv)
    if any(sequence.request.sampling.temperature for sequence in active):
        tokens = _sample(active, logits_rv)
    else:
        tokens = logits_rv.argmax(-1).tolist()
    for sequence, token in zip(active, tokens, strict=True):
        sequence.ids.append(token)


def _penalized(active: list[_Sequence], logits_rv: Tensor) -> Tensor:
    """Return logits with the repetition penalty on the tokens of prompts and answers so far."""
    if all(sequence.request.sampling.repetition_penalty == 1 for sequence in active):
        return logits_rv
    logits_rv = logits_rv.clone()
    for row, sequence in enumerate(active):
        penalty = sequence.request.sampling.repetition_penalty
        seen = sorted({*sequence.request.prompt, *sequence.ids})
        values = logits_rv[row, seen]
        logits_rv[row, seen] = torch.where(values < 0, values * penalty, values / penalty)
    return logits_rv


def _sample(active: list[_Sequence], logits_rv: Tensor) -> list[int]:
    """Return a token for each row of logits, (rows, vocabulary): drawn, or greedy at 0."""
    device = logits_rv.device
    # greedy rows are drawn too and replaced below
    temperatures = [sequence.request.sampling.temperature or 1.0 for sequence in active]
    temperature_r1 = torch.tensor(temperatures, dtype=torch.float64, device=device)[:, None]
    probability_rv = (logits_rv.double() / temperature_r1).softmax(-1)
    for row, sequence in enumerate(active):
        sampling = sequence.request.sampling
        if sampling.top_k or sampling.top_p < 1:
            probability_rv[row] = _restricted(probability_rv[row], sampling)
    cumulative_rv = probability_rv.cumsum(-1)
    numbers = [[sequence.generator.random()] for sequence in active]
    uniform_r1 = torch.tensor(numbers, dtype=torch.float64, device=device)
    threshold_r1 = uniform_r1 * cumulative_rv[:, -1:]
    token_r1 = torch.searchsorted(cumulative_rv, threshold_r1, right=True)
    tokens: list[int] = token_r1[:, 0].clamp(max=logits_rv.shape[-1] - 1).tolist()
    for row, sequence in enumerate(active):
        if not sequence.request.sampling.temperature:
            tokens[row] = int(logits_rv[row].argmax())
    return tokens


def _restricted(probability_v: Tensor, sampling: Sampling) -> Tensor:
    """Return the probabilities, (vocabulary), with those that top_k and top_p exclude at 0.

    As in transformers, top_p counts what top_k leaves, and the most likely token always remains.
    """
    sorted_v, token_v = probability_v.sort(descending=True, stable=True)
    if sampling.top_k:
        sorted_v[sampling.top_k :] = 0
    if sampling.top_p < 1:
        before_v = sorted_v.cumsum(-1) - sorted_v
        sorted_v[before_v >= sampling.top_p * sorted_v.sum()] = 0
    return torch.zeros_like(probability_v).scatter(0, token_v, sorted_v)


def _is_finished(tokenizer: Any, sequence: _Sequence, end_ids: frozenset[int]) -> bool:
    request = sequence.request
    if sequence.ids[-1] in end_ids or len(sequence.ids) >= request.max_new_tokens:
        return True
    if not request.stop:
        return False
    end = tokenizer.decode(sequence.ids[-_STOP_WINDOW:])
    return any(stop in end for stop in request.stop)
