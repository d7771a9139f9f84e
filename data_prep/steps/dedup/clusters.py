"""Groups of documents that pairs join."""

from collections.abc import Iterator
from typing import Any

import numpy as np


def clusters_of(pairs: np.ndarray[Any, Any]) -> Iterator[list[int]]:
    """Yield the connected components of pairs, each sorted, in the order of their first members.

    `pairs` has shape (n, 2) and holds the numbers of documents.
    """
    parents: dict[int, int] = {}

    def root(member: int) -> int:
        while (above := parents.setdefault(member, member)) != member:
            parents[member] = parents[above]
            member = parents[member]
        return member

    for one, other in pairs.tolist():
        first = root(one)
        second = root(other)
        if first != second:
            parents[max(first, second)] = min(first, second)  # the smallest member is the root
    groups: dict[int, list[int]] = {}
    for member in sorted(parents):
        groups.setdefault(root(member), []).append(member)
    yield from (members for members in groups.values() if len(members) > 1)
