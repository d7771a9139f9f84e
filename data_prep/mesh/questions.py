"""The question of a record: which of four MeSH headings is a major topic of its abstract."""

import re
from collections.abc import Sequence
from typing import Any

from data_prep.mesh.companions import Companions
from data_prep.mesh.headings import is_in_text, topics, words
from data_prep.text.hashing import stable_hash, unit_hash

QUESTION = "Which of these MeSH headings is a major topic of this abstract?"
LETTERS = "ABCD"

# Measured on the two files of pubmed_sample.yaml: "the most common option" is correct in 27 % with
# 0.6, in 39 % with 0, in 16 % with 1.
COMMONNESS = 0.6


def make_question(
    record: dict[str, Any],
    companions: Companions,
    seed: int,
    max_context_words: int | None,
    neighbors: int,
) -> dict[str, Any] | None:
    """Return the question of a record, or None if none can be made.

    Its `literal` is true if the words of the correct heading are in the context.

    A heading whose words are not in the context is preferred; then the words of the wrong options
    are not there either, so that they never give the answer away.
    """
    headings, major_headings = topics(record)
    if "pmid" not in record["metadata"]:
        return None
    record_id = record["id"]
    context = truncate(record["text"], max_context_words)
    context_words = words(context)
    candidates = sorted(
        (name for name in major_headings if name in companions),
        key=lambda name: (is_in_text(name, context_words), unit_hash(seed, record_id, name)),
    )
    for correct in candidates:
        literal = is_in_text(correct, context_words)
        distractors = [
            name
            for name in companions.nearest(correct, neighbors, headings)
            if literal or not is_in_text(name, context_words)
        ]
        if len(distractors) < len(LETTERS) - 1:
            continue
        options = _draw(distractors, companions, seed, record_id)[: len(LETTERS) - 1]
        position = stable_hash(seed, record_id, "place") % len(LETTERS)
        options.insert(position, correct)
        return {
            "id": f"mesh-{record_id}",
            "context": context,
            "question": QUESTION,
            "options": dict(zip(LETTERS, options, strict=True)),
            "answer": LETTERS[position],
            "pmid": record["metadata"]["pmid"],
            "literal": literal,
        }
    return None


def _draw(headings: Sequence[str], companions: Companions, seed: int, record_id: str) -> list[str]:
    """Return headings in random order, weighted by their frequency.

    The weights make wrong options about as common as correct ones; otherwise the more common
    option would be correct more often. Weighted sampling without replacement by sorting u^(1/w):
    Efraimidis and Spirakis, 2006.
    """

    def key(name: str) -> float:
        inverse_weight = companions.counts[name] ** -COMMONNESS
        return -(unit_hash(seed, record_id, name) ** inverse_weight)

    return sorted(headings, key=key)


def choose(questions: Sequence[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """Return at most `count` of the questions, in their order.

    Those whose answer is not in the context come first.
    """
    ordered = sorted(questions, key=lambda question: question["literal"])  # stable
    return ordered[:count]


def truncate(text: str, max_words: int | None) -> str:
    """Return the first words of a text, with their line breaks."""
    if max_words is None:
        return text
    match = re.match(rf"\s*(?:\S+\s+){{0,{max_words - 1}}}\S+", text)
    return match[0] if match else text
