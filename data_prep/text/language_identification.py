"""Language identification by py3langid, whose model is in its package.

The model has 97 languages and n-grams of bytes.

A record's title and abstract may be in two languages, and headings or citations in a third: each
paragraph is identified separately and the language with the most letters is the document's.
Paragraphs too short to tell count with the one before.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

CANDIDATES = (
    "en",
    "zh",
    "ja",
    "fr",
    "ru",
    "es",
    "de",
    "pt",
    "it",
    "ar",
    "ko",
    "nl",
    "pl",
    "sv",
    "da",
    "cs",
    "tr",
    "vi",
    "hi",
    "th",
)
SHORTEST = 20
"""Letters below which a paragraph is not identified separately."""

_SAMPLE = 1000
"""Characters of a paragraph that are looked at."""

_PARAGRAPHS = 40
"""Paragraphs that are looked at, spread over the document."""


@cache
def _identifier(candidates: tuple[str, ...]) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(candidates))
    return identifier


@cache
def known_languages() -> frozenset[str]:
    """Return the languages that can be distinguished."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return frozenset(LanguageIdentifier.from_model_file(MODEL_FILE).labels)


def language_fractions(text: str, candidates: Sequence[str] = CANDIDATES) -> dict[str, float]:
    """Return the fraction of letters in each language, the largest first.

    Empty when the text has no letters.
    """
    classify = _identifier(tuple(candidates)).classify
    paragraphs = [line for line in text.splitlines() if line.strip()]
    letters: Counter[str] = Counter()
    last = ""
    for paragraph in paragraphs[:: max(1, len(paragraphs) // _PARAGRAPHS)]:
        sample = paragraph[:_SAMPLE]
        # a Chinese character says what three letters do
        size = sum(map(str.isalpha, sample)) * (3 if ord(max(sample)) > 0x2E80 else 1)
        if size < SHORTEST:
            letters[last] += size
            continue
        last = classify(sample)[0]
        letters[last] += size
    if waiting := letters.pop("", 0):  # short ones before the first long one
        letters[next(iter(letters), None) or classify(text[:_SAMPLE])[0]] += waiting
    total = sum(letters.values())
    return {language: count / total for language, count in letters.most_common()} if total else {}
