"""Prompts with their continuations as trees of tokens, packed side by side into rows.

Each token is computed once.

What continuations begin with in common is one branch. A row holds several trees; the attention mask
lets a token see its own ancestors alone, and positions count along the branch, so that every branch
is computed as if it were alone ("tree attention").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROW_TOKENS = 128
"""Rows are about this wide where trees are shorter.

Keys of a shared beginning are copied once a row, attention grows with the width.
"""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Tokens of a prompt and its continuations, but the last ones, which are only predicted."""

    tokens: list[int]
    depths: list[int]
    """How many tokens precede each on its branch."""
    segments: list[tuple[int, int, int]]
    """Start and length of each unbranched stretch, and the token that it follows (-1: none)."""
    logit_positions: list[list[int]]
    """For each continuation the tokens after which its tokens are predicted."""


def tree(prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> PrefixTree:
    """Return the tree of a prompt of at least one token and its continuations."""
    tokens, depths, segments = list(prompt), list(range(len(prompt))), [(0, len(prompt), -1)]
    children: dict[tuple[int, int], int] = {}
    logit_positions = []
    for continuation in continuations:
        at = len(prompt) - 1
        positions = [at]
        for token in continuation[:-1]:
            if (at, token) not in children:
                start, length, parent = segments[-1]
                if at == len(tokens) - 1:
                    segments[-1] = (start, length + 1, parent)
                else:
                    segments.append((len(tokens), 1, at))
                children[at, token] = len(tokens)
                tokens.append(token)
                depths.append(depths[at] + 1)
            at = children[at, token]
            positions.append(at)
        logit_positions.append(positions)
    return PrefixTree(tokens, depths, segments, logit_positions)


@dataclass(frozen=True, slots=True)
class Rows:
    """Trees as one input of a model: r rows, s positions in each."""

    tokens_rs: Tensor
    positions_rs: Tensor
    attention_mask_r1st: Tensor
    """Whether each token s sees each token t, those of the shared beginning first."""
    starts: list[int]
    """Where each tree begins when the rows are laid end to end."""


def pack(trees: Sequence[PrefixTree], prefix: int) -> Rows:
    """Return the trees in rows, after a shared beginning of `prefix` tokens that all of them see.

    Rows are filled first-fit, longest trees first. Padding sees only itself.
    """
    sizes = [len(item.tokens) for item in trees]
    width = max(sizes) * max(1, round(min(ROW_TOKENS, sum(sizes)) / max(sizes)))
    filled: list[int] = []
    starts = [0] * len(trees)
    for place in sorted(range(len(trees)), key=lambda place: -sizes[place]):
        row = next(
            (row for row, used in enumerate(filled) if used + sizes[place] <= width), len(filled)
        )
        if row == len(filled):
            filled.append(0)
        starts[place] = row * width + filled[row]
        filled[row] += sizes[place]
    width = max(filled) if len(filled) == 1 else width

    tokens_rs = torch.zeros((len(filled), width), dtype=torch.long)
    positions_rs = torch.full_like(tokens_rs, prefix)
    attention_mask_rst = torch.eye(width, dtype=torch.bool).repeat(len(filled), 1, 1)
    for item, start in zip(trees, starts, strict=True):
        row, column = divmod(start, width)
        end = column + len(item.tokens)
        tokens_rs[row, column:end] = torch.tensor(item.tokens)
        positions_rs[row, column:end] = torch.tensor(item.depths) + prefix
        _attend_to_ancestors(attention_mask_rst[row, column:end, column:end], item.segments)
    attention_mask_rst = torch.cat(
        [torch.ones((len(filled), width, prefix), dtype=torch.bool), attention_mask_rst], dim=2
    )
    return Rows(tokens_rs, positions_rs, attention_mask_rst[:, None], starts)


def _attend_to_ancestors(mask_tt: Tensor, segments: Sequence[tuple[int, int, int]]) -> None:
    for start, length, parent in segments:
        if parent >= 0:
            mask_tt[start : start + length] |= mask_tt[parent]
        mask_tt[start : start + length, start : start + length] = torch.ones(
            (length, length), dtype=torch.bool
        ).tril()
