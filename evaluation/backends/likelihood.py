"""Log-likelihoods of continuations of one batch of requests, with a `ModelRunner`.

Logits over the vocabulary are computed only at the positions where they are read.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from evaluation.backends import tree_attention
from evaluation.backends.encoding import Request
from evaluation.backends.model_runner import ModelRunner, Prefix, padded, repeated
from evaluation.backends.tree_attention import PrefixTree

_CHUNK = 1024
"""Positions whose log-sum-exp is computed at once, in float32."""


@dataclass(frozen=True, slots=True)
class RequestScores:
    """Scores of one request."""

    log_likelihoods: list[float]
    """Of each continuation, in nats."""
    top_token: int
    """The most likely token of the vocabulary after the prompt."""
    greedy: list[bool] = field(default_factory=list)
    """Whether greedy decoding gives each continuation; empty if not asked for."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """The inputs of one forward pass, and where its logits are read.

    r: rows, s: positions of a row, t: positions that a token may attend to.
    """

    tokens_rs: Tensor
    mask: Tensor
    """Attention mask: (rows, positions), or (rows, 1, s, t) for tree attention."""
    positions_rs: Tensor
    """Position ids."""
    logit_positions: list[list[list[int]]]
    """For each request and continuation: where its tokens are predicted, rows end to end."""
    cache: Any = None
    """Keys and values of the prefix, or None."""


@torch.inference_mode()
def score_trees(
    runner: ModelRunner,
    requests: Sequence[Request],
    trees: Sequence[PrefixTree],
    prefix: Prefix,
    greedy: bool = False,
) -> list[RequestScores]:
    """Return the scores of requests by tree attention: each token is computed once.

    Args:
        runner: the model.
        requests: the batch.
        trees: the tree of each request, of its prompt behind the prefix.
        prefix: what all prompts begin with.
        greedy: whether continuations are compared with greedy decoding.
    """
    rows = tree_attention.pack(trees, prefix.length)
    cache = None
    if prefix.cache is not None:
        cache = repeated(prefix, len(rows.tokens_rs))
    logit_positions = [
        _shifted(tree.logit_positions, start)
        for tree, start in zip(trees, rows.starts, strict=True)
    ]
    mask = _attention_mask(runner.model, rows.attention_mask_r1st)
    forward_pass = _Pass(rows.tokens_rs, mask, rows.positions_rs, logit_positions, cache)
    return _score(runner, requests, forward_pass, greedy)


@torch.inference_mode()
def score_rows(
    runner: ModelRunner, requests: Sequence[Request], greedy: bool = False
) -> list[RequestScores]:
    """Return the scores of requests with a row for each of their `endings`.

    For models in which more than an attention mask decides what a token depends on.
    """
    rows: list[tuple[int, tuple[int, ...]]] = []
    for index, request in enumerate(requests):
        rows += [(index, ending) for ending in endings(request)]
    row_of = {key: row for row, key in enumerate(rows)}
    tokens_rs, mask_rs = padded(
        [[*requests[index].prompt, *ending] for index, ending in rows], left=False
    )
    width = tokens_rs.shape[1]
    logit_positions: list[list[list[int]]] = []
    for index, request in enumerate(requests):
        of_request: list[list[int]] = []
        for continuation in request.continuations:
            row = row_of[index, tuple(continuation[:-1])]
            start = row * width + len(request.prompt) - 1
            of_request.append(list(range(start, start + len(continuation))))
        logit_positions.append(of_request)
    positions_rs = torch.arange(width).expand_as(tokens_rs)
    forward_pass = _Pass(tokens_rs, mask_rs, positions_rs, logit_positions)
    return _score(runner, requests, forward_pass, greedy)


def endings(request: Request) -> list[tuple[int, ...]]:
    """Return the distinct continuations without their last tokens, which are only predicted."""
    return list(dict.fromkeys(tuple(item[:-1]) for item in request.continuations))


def num_row_tokens(request: Request) -> int:
    """Return the padded tokens of a request with a row for each of its endings."""
    return len(endings(request)) * request.input_length


def _attention_mask(model: Any, mask_r1st: Tensor) -> Tensor:
    """Return a boolean mask as the model's attention kernel expects it.

    Eager attention adds its mask to the scores; the other kernels take a boolean mask.
    """
    if model.config.get_text_config()._attn_implementation != "eager":
        return mask_r1st
    zeros = torch.zeros(mask_r1st.shape, dtype=model.dtype)
    return zeros.masked_fill_(~mask_r1st, torch.finfo(model.dtype).min)


def _shifted(positions: Sequence[Sequence[int]], start: int) -> list[list[int]]:
    """Return the positions of each continuation in a tree that begins at `start`."""
    return [[start + position for position in item] for item in positions]


def _score(
    runner: ModelRunner, requests: Sequence[Request], forward_pass: _Pass, greedy: bool
) -> list[RequestScores]:
    """Run the model and return the scores of each request."""
    # n: positions at which logits are read, k: tokens of all continuations, v: vocabulary
    positions = sorted(set(_flattened(forward_pass.logit_positions)))
    logits_nv = _logits_at(runner, forward_pass, positions)
    row_of = {position: row for row, position in enumerate(positions)}
    rows = [row_of[position] for position in _flattened(forward_pass.logit_positions)]
    row_k = torch.tensor(rows, device=runner.device)
    tokens = list(_flattened([request.continuations for request in requests]))
    token_k = torch.tensor(tokens, device=runner.device)
    logit_k = logits_nv[row_k, token_k].double()
    chunks = [chunk_nv.float().logsumexp(-1) for chunk_nv in logits_nv.split(_CHUNK)]
    log_sum_n = torch.cat(chunks).double()
    log_probabilities = iter((logit_k - log_sum_n[row_k]).tolist())
    is_top_k = iter((logits_nv.argmax(-1)[row_k] == token_k).tolist() if greedy else [])

    first_rows = [row_of[of_request[0][0]] for of_request in forward_pass.logit_positions]
    after_prompt = torch.tensor(first_rows, device=runner.device)
    top_tokens = logits_nv[after_prompt].argmax(-1).tolist()
    scores = []
    for request, top_token in zip(requests, top_tokens, strict=True):
        log_likelihoods = [
            sum(itertools.islice(log_probabilities, len(continuation)))
            for continuation in request.continuations
        ]
        matches = []
        if greedy:
            lengths = map(len, request.continuations)
            matches = [all(list(itertools.islice(is_top_k, length))) for length in lengths]
        scores.append(RequestScores(log_likelihoods, top_token, matches))
    return scores


def _logits_at(runner: ModelRunner, forward_pass: _Pass, positions: Sequence[int]) -> Tensor:
    """Return the logits at some positions, counted over rows end to end: (positions, vocabulary).

    A hook passes only these positions to the output layer.
    """
    index = torch.tensor(positions, device=runner.device)

    def select(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        states_rsh = arguments[0]
        return (states_rsh.flatten(0, 1)[index][None],)

    hook = runner.model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        output = runner.forward(
            forward_pass.tokens_rs,
            forward_pass.mask,
            forward_pass.positions_rs,
            forward_pass.cache,
            use_cache=forward_pass.cache is not None,
        )
    finally:
        hook.remove()
    return output.logits[0]


def _flattened(nested: Iterable[Iterable[Iterable[int]]]) -> Iterable[int]:
    """Yield the numbers of lists of lists of lists."""
    return itertools.chain.from_iterable(itertools.chain.from_iterable(nested))
