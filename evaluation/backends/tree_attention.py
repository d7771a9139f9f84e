"""Tree attention: prompts with their continuations as trees of tokens, each computed once.

Continuations that begin with the same tokens share a branch. Several trees are packed into a row;
the attention mask lets a token attend only to its ancestors, and positions count along the branch,
so that every branch is computed as if it were alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROW_TOKENS = 128
"""Approximate width of rows where trees are shorter.

The keys of a shared prefix are copied once per row; attention grows with the width.
"""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Tokens of a prompt and its continuations, without the last ones, which are only predicted."""

    tokens: list[int]
    depths: list[int]
    """How many tokens precede each on its branch."""
    segments: list[tuple[int, int, int]]
    """Start and length of each unbranched stretch, and the token that it follows (-1: none)."""
    logit_positions: list[list[int]]
    """For each continuation the tokens after which its tokens are predicted."""


def tree(prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> PrefixTree:
    """Return the tree of a prompt of at least one token and its continuations."""
    tokens = list(prompt)
    depths = list(range(len(prompt)))
    segments = [(0, len(prompt), -1)]
    children: dict[tuple[int, int], int] = {}
    logit_positions = []
    for continuation in continuations:
        position = len(prompt) - 1
        positions = [position]
        for token in continuation[:-1]:
            if (position, token) not in children:
                start, length, parent = segments[-1]
                if position == len(tokens) - 1:
                    segments[-1] = (start, length + 1, parent)
                else:
                    segments.append((len(tokens), 1, position))
                children[position, token] = len(tokens)
                tokens.append(token)
                depths.append(depths[position] + 1)
            position = children[position, token]
            positions.append(position)
        logit_positions.append(positions)
    return PrefixTree(tokens, depths, segments, logit_positions)


@dataclass(frozen=True, slots=True)
class Rows:
    """Trees as one input of a model: r rows, s positions in each, t positions to attend to."""

    tokens_rs: Tensor
    positions_rs: Tensor
    """Position ids."""
    attention_mask_r1st: Tensor
    """Whether token s attends to token t; those of the shared prefix come first."""
    starts: list[int]
    """Where each tree begins, counted over rows end to end."""


def pack(trees: Sequence[PrefixTree], prefix: int) -> Rows:
    """Return the trees in rows, after a shared prefix of `prefix` tokens that all attend to.

    Rows are filled first-fit, longest trees first. Padding attends only to itself.
    """
    lengths = [len(item.tokens) for item in trees]
    longest = max(lengths)
    width = longest * max(1, round(min(ROW_TOKENS, sum(lengths)) / longest))
    slots = _first_fit(lengths, width)
    num_rows = 1 + max(slot.row for slot in slots)
    if num_rows == 1:
        width = sum(lengths)

    tokens_rs = torch.zeros((num_rows, width), dtype=torch.long)
    positions_rs = torch.full_like(tokens_rs, prefix)
    mask_rst = torch.eye(width, dtype=torch.bool).repeat(num_rows, 1, 1)
    for item, slot in zip(trees, slots, strict=True):
        columns = slice(slot.column, slot.column + len(item.tokens))
        tokens_rs[slot.row, columns] = torch.tensor(item.tokens)
        positions_rs[slot.row, columns] = torch.tensor(item.depths) + prefix
        _attend_to_ancestors(mask_rst[slot.row, columns, columns], item.segments)
    prefix_mask_rst = torch.ones((num_rows, width, prefix), dtype=torch.bool)
    mask_rst = torch.cat([prefix_mask_rst, mask_rst], dim=2)
    starts = [slot.row * width + slot.column for slot in slots]
    return Rows(tokens_rs, positions_rs, mask_rst[:, None], starts)


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a tree begins."""

    row: int
    column: int


def _first_fit(lengths: Sequence[int], width: int) -> list[_Slot]:
    """Return where each tree begins when rows of a width are filled, longest trees first."""
    used: list[int] = []
    slots: dict[int, _Slot] = {}
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fitting = (row for row, tokens in enumerate(used) if tokens + lengths[index] <= width)
        row = next(fitting, len(used))
        if row == len(used):
            used.append(0)
        slots[index] = _Slot(row, used[row])
        used[row] += lengths[index]
    return [slots[index] for index in range(len(lengths))]


def _attend_to_ancestors(mask_st: Tensor, segments: Sequence[tuple[int, int, int]]) -> None:
    """Set the attention mask of one tree, (its tokens, its tokens).

    Args:
        mask_st: the diagonal is set already.
        segments: of the tree.
    """
    for start, length, parent in segments:
        end = start + length
        if parent >= 0:
            mask_st[start:end] |= mask_st[parent]
        mask_st[start:end, start:end] = torch.ones((length, length), dtype=torch.bool).tril()
