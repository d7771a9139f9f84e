"""Which documents are medical: MMedLM's rule (arXiv 2402.13963) over keyword lists of our own.

A document is medical when enough *different* terms of its language occur and the occurrences fill
enough of the text: the sum of count × length of the term, by the characters of the text. The number
of different terms is that for 300 words or more; shorter texts, such as abstracts, need fewer in
proportion, and at least two. The lists are in data_prep/steps/filters/keywords, one term a line;
they leave out words that are everyday language, on which a football report would score as high as
an abstract.

Spaced languages are matched word by word, whatever is between the words; both sides are reduced
to Snowball stems (Arabic: light10), so that "Cáncer," and "cánceres" meet "cáncer". Chinese and
Japanese terms are matched as substrings. The search is one pass of Aho-Corasick.
"""

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from datatrove.data import Document
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, Fraction, PerSourceSettings
from data_prep.steps.filters.arabic_stemmer import ArabicStemmer
from data_prep.text.words import WORD, count_words, plain, searchable
from galen.errors import UsageError
from galen.recipe import STRICT

KEYWORDS = Path(__file__).with_name("keywords")
_STEMMERS = {
    "ar": "light10",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "pt": "portuguese",
    "ru": "russian",
}
_SUBSTRINGS = ("zh", "ja")
_CACHED_STEMS = 500_000
_FULL_WORDS = 300
_FEWEST = 2


@dataclasses.dataclass(frozen=True)
class Rule:
    """Least different terms, and least fraction of the text in terms, of a medical document."""

    unique: int
    density: float


# MMedLM's numbers of terms; densities its own for en, zh, ja and ru, and 0.02 to 0.04 by
# measurement for the others (docs/curation.md)
RULES = {
    "en": Rule(5, 0.04),
    "zh": Rule(5, 0.05),
    "ja": Rule(5, 0.05),
    "ru": Rule(4, 0.02),
    "es": Rule(4, 0.03),
    "fr": Rule(4, 0.03),
    "de": Rule(4, 0.02),
    "pt": Rule(4, 0.03),
    "it": Rule(4, 0.04),
    "ar": Rule(4, 0.04),
}


class TermMatcher:
    """Finds the terms of one language in texts."""

    def __init__(self, language: str, terms: list[str]) -> None:
        import ahocorasick_rs

        self.substrings = language in _SUBSTRINGS
        self._stems: dict[str, str] = {}
        if not self.substrings:
            import snowballstemmer

            self._stemmer: Any
            if language == "ar":
                self._stemmer = ArabicStemmer()
            else:
                self._stemmer = snowballstemmer.stemmer(_STEMMERS[language])
        # terms with one stem count as one
        lengths = {self._normalize(term): len(term) for term in terms}
        self._lengths = list(lengths.values())
        self._automaton: Any = ahocorasick_rs.AhoCorasick(list(lengths))

    def _normalize(self, text: str) -> str:
        """Return the text as it is searched.

        Stems with a space on either side, or plain characters.
        """
        if self.substrings:
            return plain(text)
        return f" {' '.join(map(self._stem, WORD.findall(searchable(text))))} "

    def _stem(self, word: str) -> str:
        stem = self._stems.get(word)
        if stem is None:
            if len(self._stems) >= _CACHED_STEMS:
                self._stems.clear()
            stem = plain(self._stemmer.stemWord(word.lower()))
            self._stems[word] = stem
        return stem

    def find(self, text: str) -> tuple[int, float]:
        """Return the number of different terms and their density.

        Overlapping terms all count as different, each character once.
        """
        normalized = self._normalize(text)
        unique = set()
        characters = 0
        end = 0
        for term, start, stop in self._automaton.find_matches_as_indexes(
            normalized, overlapping=True
        ):
            unique.add(term)
            if start >= end - 1:  # neighbours share the space between them
                characters += self._lengths[term]
                end = stop
        return len(unique), characters / max(1, len(text))


def read_terms(path: Path) -> list[str]:
    """Return the terms of a list, one a line; `#` begins a comment.

    Raises:
        UsageError: it is empty.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    stripped = [line.partition("#")[0].strip() for line in lines]
    terms = [line for line in stripped if line]
    if not terms:
        raise UsageError(f"{path} holds no terms; write one a line")
    return terms


def lists_in(folder: str | None) -> Iterator[tuple[str, Path]]:
    """Yield language and path of the lists in a folder.

    Raises:
        UsageError: there is none, or one is of a language that cannot be matched.
    """
    paths = sorted(Path(folder or KEYWORDS).glob("*.txt"))
    if not paths:
        raise UsageError(f"{folder} holds no lists of keywords named <language>.txt")
    for path in paths:
        if path.stem not in _STEMMERS and path.stem not in _SUBSTRINGS:
            raise UsageError(
                f"{path}: languages that can be matched are"
                f" {', '.join(sorted((*_STEMMERS, *_SUBSTRINGS)))}"
            )
        yield path.stem, path


@cache
def matcher(language: str, path: Path) -> TermMatcher:
    """Return the matcher of a list, made once in each process."""
    return TermMatcher(language, read_terms(path))


@dataclass(kw_only=True, config=STRICT)
class MedicalSettings(PerSourceSettings):
    """Keep documents with enough different medical terms that fill enough of the text.

    This is MMedLM's rule. Needs language_id before.
    """

    required_before: ClassVar = ("language_id",)
    step: Literal["medical"] = "medical"
    min_unique: int | None = Field(default=None, ge=1)
    """Different terms needed in 300 words or more, fewer in shorter texts.

    null takes the language's own (filters/medical.py).
    """

    min_density: Fraction | None = None
    """Characters in terms, by characters of text; null takes the language's own."""

    other_languages: Literal["drop", "keep"] = "drop"
    """Documents in a language without a list of terms."""

    keywords: str | None = None
    """Folder with <language>.txt lists of one's own; null takes data_prep/steps/filters/keywords.
    """

    def input_files(self) -> list[Path]:
        """Return the user's lists of keywords."""
        return [path for _, path in lists_in(self.keywords)] if self.keywords else []


class MedicalFilter(DocumentFilter[MedicalSettings]):
    """Drops documents not medical by their language's rule; records the findings in `medical`."""

    name = "medical"
    Settings = MedicalSettings

    def __init__(
        self, settings: MedicalSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self.lists = dict(lists_in(settings.keywords))

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        language = doc.metadata.get("text_language", "en")
        if language not in self.lists:
            if self.settings.other_languages == "keep":
                return True
            return False, f"no keyword list ({language})"
        unique, density = matcher(language, self.lists[language]).find(doc.text)
        doc.metadata["medical"] = {"unique": unique, "density": round(density, 4)}
        if unique < self._min_unique(language, count_words(doc.text)):
            return False, "too few medical terms"
        min_density = self.settings.min_density
        if density < (RULES[language].density if min_density is None else min_density):
            return False, "low density of medical terms"
        return True

    def _min_unique(self, language: str, words: int) -> int:
        """Return the number of different terms that a text of so many words needs."""
        full = self.settings.min_unique
        if full is None:
            full = RULES[language].unique
        scaled = math.ceil(full * min(1.0, words / _FULL_WORDS))
        return max(min(full, _FEWEST), scaled)
