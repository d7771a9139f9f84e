"""Medical Subject Headings as they stand in curated records, and which of them keep the same company."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# NLM's check tags (indexing policy, "Check Tags"): routinely ticked for species, sex, age and period, they say little of the topic.
CHECK_TAGS = frozenset(
    """Adolescent|Adult|Aged|Aged, 80 and over|Animals|Bees|Cats|Cattle|Chick Embryo|Child|Child, Preschool|Chlorocebus aethiops|Cricetinae|
    Dogs|Female|Guinea Pigs|Horses|Humans|Infant|Infant, Newborn|Male|Mesocricetus|Mice|Middle Aged|Pregnancy|Rabbits|Rats|Sheep|Swine|
    United States|Young Adult""".replace("\n", "")
    .replace("    ", "")
    .split("|")
)


def is_topic(name: str) -> bool:
    """Say whether this heading is a topic, not a check tag or a period ("History, 19th Century")."""
    return name not in CHECK_TAGS and not name.startswith("History, ")


def _is_heading(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str) or "major" not in value:
        return False
    return is_topic(value["name"])


def topics(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the record's topic headings, and those of them that are major topics, without repetition."""
    assigned = record["metadata"].get("mesh")  # as the reader of MEDLINE writes it; other sources have none, or another kind
    headings = [heading for heading in assigned if _is_heading(heading)] if isinstance(assigned, list) else []
    every = list(dict.fromkeys(heading["name"] for heading in headings))
    return every, list(dict.fromkeys(heading["name"] for heading in headings if heading["major"]))


def words(text: str) -> set[str]:
    """Return the words of a text for comparison: lower case, plural s taken off."""
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower())}


def stands_in(heading: str, text_words: set[str]) -> bool:
    """Say whether all words of the heading stand in the text."""
    return words(heading) <= text_words


class Companions:
    """For each heading that is a major topic often enough, the others that occur together with the same headings.

    Records carry no MeSH tree numbers, so the branch is approximated: headings are compared by the cosine of their rows in the matrix of
    positive pointwise mutual information (Church and Hanks, 1990) of headings assigned to the same record. Headings of one branch
    ("Myocardial Infarction", "Angina Pectoris") have alike rows even if they never stand on one record.

    Args:
        records: pairs of a record's topic headings and its major ones, as `topics` gives.
        minimum: how many records a heading must be a major topic of.
        limit: at most so many headings, the most frequent; memory grows with its square (4 bytes each, three matrices).
    """

    def __init__(self, records: Iterable[tuple[Sequence[str], Sequence[str]]], minimum: int = 3, limit: int = 4000) -> None:
        lists, majors = [], Counter[str]()
        for every, major in records:
            lists.append(every)
            majors.update(major)
        ranked = sorted(((count, name) for name, count in majors.items() if count >= minimum), key=lambda pair: (-pair[0], pair[1]))
        self.counts = {name: count for count, name in ranked[:limit]}
        self.names = sorted(self.counts)
        self._index = {name: i for i, name in enumerate(self.names)}
        self._similarity = _cosines(_positive_information(self._together(lists)))

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def nearest(self, name: str, count: int, without: Iterable[str]) -> list[str]:
        """Return the `count` headings most like `name`, best first, `name` and those of `without` left out."""
        excluded = {name, *without}
        order = np.argsort(-self._similarity[self._index[name]], kind="stable")
        found = (self.names[i] for i in order)
        return [other for other, _ in zip((other for other in found if other not in excluded), range(count), strict=False)]

    def _together(self, lists: Iterable[Sequence[str]]) -> np.ndarray[Any, Any]:
        """Return how many records each pair of headings shares; the diagonal holds the records of each."""
        counts = np.zeros((len(self.names), len(self.names)), dtype=np.float32)
        for every in lists:
            present = [self._index[name] for name in every if name in self._index]
            counts[np.ix_(present, present)] += 1
        return counts


def _positive_information(together: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return max(0, log(p(a, b) / p(a) p(b))) of each pair of different headings."""
    np.fill_diagonal(together, 0)
    single, total = together.sum(axis=1), max(float(together.sum()), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        together *= total / single[:, None] / single[None, :]
        np.log(together, out=together)
    return np.nan_to_num(np.maximum(together, 0), copy=False, nan=0.0)


def _cosines(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the cosine of each pair of rows, rounded so that order does not depend on the last bit of a library's sums."""
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.round(rows @ rows.T, 4)
