"""Headings that occur in the same company as a heading: plausible wrong options of a question."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Companions:
    """For each frequent major topic, the other headings that occur together with the same headings.

    Records have no MeSH tree numbers, so the branch is approximated: headings are compared by the
    cosine of their rows in the matrix of positive pointwise mutual information (Church and Hanks,
    1990) of headings assigned to the same record. Headings of one branch ("Myocardial Infarction",
    "Angina Pectoris") have similar rows even if no record has both.

    Args:
        records: pairs of a record's topic headings and its major topics, as `headings.topics`
            returns them.
        min_records: number of records that a heading must be a major topic of.
        limit: maximum number of headings, the most frequent ones; memory grows with its square
            (4 bytes each, three matrices).
    """

    def __init__(
        self,
        records: Iterable[tuple[Sequence[str], Sequence[str]]],
        min_records: int = 3,
        limit: int = 4000,
    ) -> None:
        headings_by_record = []
        majors = Counter[str]()
        for headings, major_headings in records:
            headings_by_record.append(headings)
            majors.update(major_headings)
        frequent = [(count, name) for name, count in majors.items() if count >= min_records]
        frequent.sort(key=lambda pair: (-pair[0], pair[1]))
        self.counts = {name: count for count, name in frequent[:limit]}
        """Number of records that each heading is a major topic of."""
        self.num_majors = len(majors)
        """Number of headings that are a major topic of any record."""
        self.num_rare = len(majors) - len(frequent)
        """Number of those that are a major topic of fewer than `min_records`."""
        self.num_over_limit = len(frequent) - len(self.counts)
        self.names = sorted(self.counts)
        self._index = {name: i for i, name in enumerate(self.names)}
        cooccurrences = self._cooccurrences(headings_by_record)
        self._similarity = _cosines(_positive_information(cooccurrences))

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def nearest(self, name: str, count: int, without: Iterable[str]) -> list[str]:
        """Return the `count` headings most similar to `name`, best first.

        `name` and those of `without` are excluded.
        """
        excluded = {name, *without}
        order = np.argsort(-self._similarity[self._index[name]], kind="stable")
        others = (self.names[i] for i in order if self.names[i] not in excluded)
        return list(islice(others, count))

    def _cooccurrences(self, headings_by_record: Iterable[Sequence[str]]) -> Array:
        """Return the number of records that each pair of headings shares.

        The diagonal holds the number of records of each heading.
        """
        counts = np.zeros((len(self.names), len(self.names)), dtype=np.float32)
        for headings in headings_by_record:
            indices = [self._index[name] for name in headings if name in self._index]
            counts[np.ix_(indices, indices)] += 1
        return counts


def _positive_information(cooccurrences: Array) -> Array:
    """Return max(0, log(p(a, b) / p(a) p(b))) of each pair of different headings, in place."""
    np.fill_diagonal(cooccurrences, 0)
    single = cooccurrences.sum(axis=1)
    total = max(float(cooccurrences.sum()), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cooccurrences *= total / single[:, None] / single[None, :]
        np.log(cooccurrences, out=cooccurrences)
    return np.nan_to_num(np.maximum(cooccurrences, 0), copy=False, nan=0.0)


def _cosines(rows: Array) -> Array:
    """Return the cosine of each pair of rows.

    It is rounded so that the order does not depend on the last bit of a library's sums.
    """
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.round(rows @ rows.T, 4)
