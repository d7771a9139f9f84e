"""MeSH headings of a record, and whether a text contains their words."""

import re
from collections.abc import Mapping
from typing import Any

# NLM's check tags (indexing policy, "Check Tags"): assigned routinely for species, sex, age and
# period, they say little about the topic.
CHECK_TAGS = frozenset(
    [
        "Adolescent", "Adult", "Aged", "Aged, 80 and over", "Animals", "Bees", "Cats", "Cattle",
        "Chick Embryo", "Child", "Child, Preschool", "Chlorocebus aethiops", "Cricetinae", "Dogs",
        "Female", "Guinea Pigs", "Horses", "Humans", "Infant", "Infant, Newborn", "Male",
        "Mesocricetus", "Mice", "Middle Aged", "Pregnancy", "Rabbits", "Rats", "Sheep", "Swine",
        "United States", "Young Adult",
    ]
)  # fmt: skip


def topics(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the record's topic headings and the major topics among them, without duplicates."""
    # as written by the MEDLINE reader; other sources have no `mesh`, or something else there
    assigned = record["metadata"].get("mesh")
    if not isinstance(assigned, list):
        return [], []
    headings = [heading for heading in assigned if _is_topic_heading(heading)]
    names = dict.fromkeys(heading["name"] for heading in headings)
    major_names = dict.fromkeys(heading["name"] for heading in headings if heading["major"])
    return list(names), list(major_names)


def is_topic(name: str) -> bool:
    """Return whether a heading is a topic.

    Check tags and periods ("History, 19th Century") are not.
    """
    return name not in CHECK_TAGS and not name.startswith("History, ")


def _is_topic_heading(value: Any) -> bool:
    if not isinstance(value, Mapping) or "major" not in value:
        return False
    name = value.get("name")
    return isinstance(name, str) and is_topic(name)


def words(text: str) -> set[str]:
    """Return the words of a text for comparison: in lower case, without a plural s."""
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower())}


def is_in_text(heading: str, text_words: set[str]) -> bool:
    """Return whether all words of a heading are in a text."""
    return words(heading) <= text_words
