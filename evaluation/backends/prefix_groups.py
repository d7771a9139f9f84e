"""Prompts that share a prefix (instruction, few-shot examples): the prefix is computed once."""

from collections.abc import Sequence

SHORTEST = 16
"""Tokens that prompts must share before it pays to compute them apart."""
_GROUP_COST = 256
"""Tokens that a further group must save.

Its beginning is a pass of its own, and its last batch is not full.
"""


def common_prefix_length(prompts: Sequence[list[int]]) -> int:
    """Return how many tokens all prompts begin with; at least one token of each is left over."""
    low, high = min(prompts), max(prompts)  # of lists in order, these two differ earliest
    shortest = min(map(len, prompts)) - 1
    return next((place for place in range(shortest) if low[place] != high[place]), shortest)


def groups(prompts: Sequence[list[int]]) -> list[tuple[int, list[int]]]:
    """Part prompts by what they begin with so that few tokens are computed twice.

    A task with the few-shot examples of each subject before its questions has a group for each
    subject.

    Returns:
        Length of the shared beginning (0: none) and places in `prompts`, group by group; every
        place once.
    """
    if not prompts:
        return []
    return [
        (length if length >= SHORTEST and len(places) > 1 else 0, places)
        for length, places in _best(prompts, range(len(prompts)))[1]
    ]


def _best(
    prompts: Sequence[list[int]], places: Sequence[int]
) -> tuple[int, list[tuple[int, list[int]]]]:
    """Return how many tokens the best partition saves, and the partition."""
    length = common_prefix_length([prompts[place] for place in places])
    by_next: dict[int, list[int]] = {}
    for place in places:
        by_next.setdefault(prompts[place][length], []).append(place)
    rest, saved, found = [], 0, []
    for children in by_next.values():
        if len(children) > 1 and len(by_next) > 1:
            child_saved, child_groups = _best(prompts, children)
            if child_saved - length * len(children) > _GROUP_COST:
                saved += child_saved
                found += child_groups
                continue
        rest += children
    if not rest:
        return saved, found
    length = common_prefix_length([prompts[place] for place in rest])
    return saved + length * (len(rest) - 1), [(length, sorted(rest)), *found]
