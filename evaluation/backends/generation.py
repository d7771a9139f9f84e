"""Batched generation with a `ModelRunner`: token by token, each row until it ends."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.backends.encoding import GenerationRequest
from evaluation.backends.model_runner import ModelRunner, Prefix
from galen.errors import UsageError

_LOOK_BACK = 12
"""Tokens in which a stop string is looked for after each step; the longest is three signs long."""
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>")


@torch.inference_mode()
def run(runner: ModelRunner, requests: list[GenerationRequest], prefix: Prefix) -> list[list[str]]:
    """Return the answers of the requests of one batch, one per sample.

    Random numbers belong to a sample and its step, not to the batch, so that the same sample draws
    the same ones in any batch.
    """
    output, mask_ps = runner.prefill([request.prompt for request in requests], prefix)
    of_row = [index for index, request in enumerate(requests) for _ in request.seeds]
    sources = [_random(seed) for request in requests for seed in request.seeds]
    written: list[list[int]] = [[] for _ in of_row]
    ends = end_tokens(
        runner.tokenizer,
        getattr(getattr(runner.model, "generation_config", None), "eos_token_id", None),
    )

    if getattr(output, "past_key_values", None) is None:
        raise UsageError(
            "written answers need a model that keeps keys and values; this one has other states:"
            " score it by likelihoods"
        )
    cache, select = output.past_key_values, torch.tensor(of_row)
    cache.batch_select_indices(select.to(runner.device))
    # r: rows still written, v: vocabulary
    logits_rv, mask_rs = output.logits[select.to(runner.device), -1], mask_ps[select]
    active = list(range(len(of_row)))
    while True:
        chosen = _choose(
            logits_rv,
            [requests[of_row[row]].temperature for row in active],
            [sources[row] for row in active],
        )
        for row, token in zip(active, chosen, strict=True):
            written[row].append(token)
        kept = [
            place
            for place, row in enumerate(active)
            if not _finished(runner.tokenizer, written[row], requests[of_row[row]], ends)
        ]
        if not kept:
            break
        if len(kept) < len(active):
            select = torch.tensor(kept)
            cache.batch_select_indices(select.to(runner.device))
            mask_rs = mask_rs[select]
        active = [active[place] for place in kept]
        mask_rs = torch.cat([mask_rs, torch.ones((len(active), 1), dtype=torch.long)], dim=1)
        tokens_r1 = torch.tensor([[written[row][-1]] for row in active])
        positions_r1 = mask_rs.sum(1, keepdim=True) - 1
        logits_rv = runner.forward(
            tokens_r1, mask_rs, positions_r1, use_cache=True, past_key_values=cache
        ).logits[:, -1]
    texts = [
        text(runner.tokenizer, ids, requests[of_row[row]], ends) for row, ids in enumerate(written)
    ]
    return [
        [text for text, owner in zip(texts, of_row, strict=True) if owner == index]
        for index in range(len(requests))
    ]


def end_tokens(tokenizer: Any, configured: int | Iterable[int] | None) -> frozenset[int]:
    """Return the ids that end an answer.

    End tokens of the model, of the tokenizer, and of the usual chat templates.
    """
    found = set(configured) if isinstance(configured, Iterable) else {configured}
    vocabulary = tokenizer.get_vocab()
    found |= {tokenizer.eos_token_id} | {vocabulary[text] for text in _ENDS if text in vocabulary}
    return frozenset(token for token in found if token is not None)


def _random(seed: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16]))


def _choose(
    logits_rv: Tensor, temperatures: list[float], sources: list[np.random.Generator]
) -> list[int]:
    """Return a token for each row.

    At temperature 0 the likeliest; else drawn from the full distribution by one uniform number.
    """
    if not any(temperatures):
        return logits_rv.argmax(-1).tolist()
    scale_r1 = torch.tensor(temperatures, dtype=torch.float64, device=logits_rv.device)[:, None]
    cumulated_rv = (logits_rv.double() / scale_r1).softmax(-1).cumsum(-1)
    drawn_r1 = torch.tensor(
        [[source.random()] for source in sources], dtype=torch.float64, device=logits_rv.device
    )
    chosen_r1 = torch.searchsorted(cumulated_rv, drawn_r1 * cumulated_rv[:, -1:], right=True)
    return chosen_r1[:, 0].clamp(max=logits_rv.shape[-1] - 1).tolist()


def _finished(
    tokenizer: Any, ids: list[int], request: GenerationRequest, ends: frozenset[int]
) -> bool:
    if ids[-1] in ends or len(ids) >= request.max_new_tokens:
        return True
    tail = tokenizer.decode(ids[-_LOOK_BACK:]) if request.stop else ""
    return any(stop in tail for stop in request.stop)


def text(tokenizer: Any, ids: list[int], request: GenerationRequest, ends: frozenset[int]) -> str:
    """Return the answer as text, cut before its end token and before the first stop string."""
    found = tokenizer.decode(ids[:-1] if ids[-1] in ends else ids, skip_special_tokens=False)
    for stop in request.stop:
        found = found.split(stop)[0]
    return found
