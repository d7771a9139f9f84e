"""Prompts that share a prefix (instruction, few-shot examples): the prefix is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_PREFIX = 16
"""Tokens that a few prompts must share before a separate pass for them pays."""
_GROUP_COST = 256
"""Tokens that a further group, or a prefix of many prompts, must save.

A prefix is a separate pass, and the last batch of a group is not full.
"""


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """Prompts with a common prefix."""

    length: int
    """Length of the prefix in tokens; 0 if none is computed separately."""
    indices: list[int]
    """The prompts, by their indices."""


@dataclass(frozen=True, slots=True)
class _Partition:
    """Groups of prompts, and how many tokens they save."""

    saved: int
    groups: list[PrefixGroup]


def common_prefix_length(prompts: Sequence[list[int]]) -> int:
    """Return the length of the prompts' common prefix; at least one token of each comes after."""
    first, last = min(prompts), max(prompts)  # in sorted order these two differ earliest
    limit = min(map(len, prompts)) - 1
    for index in range(limit):
        if first[index] != last[index]:
            return index
    return limit


def groups(prompts: Sequence[list[int]]) -> list[PrefixGroup]:
    """Group prompts by their prefixes so that few tokens are computed twice.

    A task with the few-shot examples of each subject before its questions has a group for each
    subject. Each prompt is in one group.
    """
    if not prompts:
        return []
    best = _best(prompts, range(len(prompts))).groups
    return [_without_short_prefix(group) for group in best]


def _without_short_prefix(group: PrefixGroup) -> PrefixGroup:
    """Return the group with a prefix only where a separate pass for it pays."""
    saved = group.length * (len(group.indices) - 1)
    if saved >= _GROUP_COST or (saved and group.length >= MIN_PREFIX):
        return group
    return PrefixGroup(0, group.indices)


def _best(prompts: Sequence[list[int]], indices: Sequence[int]) -> _Partition:
    """Return the partition of some prompts that saves the most tokens."""
    length = common_prefix_length([prompts[index] for index in indices])
    by_next_token: dict[int, list[int]] = {}
    for index in indices:
        by_next_token.setdefault(prompts[index][length], []).append(index)
    remaining: list[int] = []
    saved = 0
    chosen: list[PrefixGroup] = []
    for children in by_next_token.values():
        if len(children) > 1 and len(by_next_token) > 1:
            child = _best(prompts, children)
            if child.saved - length * len(children) > _GROUP_COST:
                saved += child.saved
                chosen += child.groups
                continue
        remaining += children
    if not remaining:
        return _Partition(saved, chosen)
    length = common_prefix_length([prompts[index] for index in remaining])
    own = PrefixGroup(length, sorted(remaining))
    return _Partition(saved + length * (len(remaining) - 1), [own, *chosen])
