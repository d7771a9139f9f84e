"""Gopher's rules for quality and repetition, by datatrove, for clinical prose.

See https://arxiv.org/abs/2112.11446, table A1.

Differences to the defaults there, and why: words are split without spaCy, in any language; words in
unspaced scripts are single characters, so the rules on their length do not apply; abstracts hold
more figures and longer words than the web; stop words by language.
"""

import re
from collections.abc import Sequence
from typing import Literal

from datatrove.data import Document
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from pydantic import Field
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, PerSourceSettings
from data_prep.text.words import Words
from galen.recipe import STRICT

STOP_WORDS = {
    "en": "the be to of and that have with in is was were for by are",
    "fr": "le la les de des du et un une que dans pour par est sont avec au",
    "es": "el la los las de del y un una que en por para con es se al",
    "pt": "o a os as de do da dos das e um uma que em por para com é no na",
    "it": "il lo la i gli le di del della e un una che in per con è al nel",
    "de": "der die das und ist in zu den von mit bei für ein eine des dem nicht",
    "nl": "de het een en van in is op te dat voor met zijn bij",
    "ru": "и в не на что с по для при у из от к как",
    "pl": "i w z na nie do się jest że oraz po dla",
}
_FIGURE = re.compile(r"\d+(?:[.,]\d+)+")  # "12.5" is one word
_UNSPACED = ("zh", "ja", "th", "ko")
# Gopher's: length of a sequence, highest fraction of the text
_TOP_N_GRAMS = [(2, 0.2), (3, 0.18), (4, 0.16)]
_DUPLICATED_N_GRAMS = [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)]


@dataclass(kw_only=True, config=STRICT)
class QualitySettings(PerSourceSettings):
    """Gopher's quality rules by datatrove, set so that clinical prose stays.

    null switches a rule off.
    """

    step: Literal["quality"] = "quality"
    min_avg_word_length: float | None = 2.5
    """Mean letters a word, at least."""

    max_avg_word_length: float | None = 12.0
    """Mean letters a word, at most: chemistry and German have long words."""

    max_symbol_word_ratio: float | None = 0.1
    """Hash signs or ellipses by words."""

    max_bullet_lines_ratio: float | None = 0.9
    """Fraction of lines that begin with a bullet."""

    max_ellipsis_lines_ratio: float | None = 0.6
    """Fraction of lines that end in an ellipsis.

    Gopher's 0.3 drops any abstract of one paragraph that ends so.
    """

    min_alpha_words_ratio: float | None = 0.6
    """Fraction of words with a letter; Gopher's 0.8 drops abstracts full of figures."""

    min_stop_words: int | None = 2
    """Different stop words; for languages with a list only."""


class QualityFilter(DocumentFilter[QualitySettings]):
    """datatrove's quality filter with stop words and word lengths of the document's language."""

    name = "quality"
    Settings = QualitySettings

    def __init__(
        self, settings: QualitySettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self._words = Words()
        self._gopher = GopherQualityFilter(
            min_doc_words=None,
            max_doc_words=None,
            min_avg_word_length=None,
            max_avg_word_length=None,
            max_symbol_word_ratio=settings.max_symbol_word_ratio,
            max_bullet_lines_ratio=settings.max_bullet_lines_ratio,
            max_ellipsis_lines_ratio=settings.max_ellipsis_lines_ratio,
            max_non_alpha_words_ratio=None,
            min_stop_words=None,
            language=self._words,
        )
        self._stop_words = {
            language: frozenset(words.split()) for language, words in STOP_WORDS.items()
        }

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        language = doc.metadata.get("text_language", "en")
        words = [
            word
            for word in self._words.word_tokenize(_FIGURE.sub("0", doc.text))
            if word[0].isalnum()
        ]
        reason = self._word_fault(words, language)
        if reason is not None:
            return False, reason
        result = self._gopher.filter(doc)
        if result is True:
            return True
        return False, str(result[1]).removeprefix("gopher_").replace("_", " ")

    def _word_fault(self, words: Sequence[str], language: str) -> str | None:
        """Return what is wrong with a text's words, None for nothing."""
        settings = self.settings
        spelled = [word for word in words if any(map(str.isalpha, word))]
        if not spelled:
            return "no words"
        if language not in _UNSPACED:
            mean = sum(map(len, spelled)) / len(spelled)
            if settings.min_avg_word_length is not None and mean < settings.min_avg_word_length:
                return "words too short"
            if settings.max_avg_word_length is not None and mean > settings.max_avg_word_length:
                return "words too long"
        min_alpha = settings.min_alpha_words_ratio
        if min_alpha is not None and len(spelled) < min_alpha * len(words):
            return "too few words with letters"
        stop_words = self._stop_words.get(language)
        if settings.min_stop_words and stop_words:
            present = stop_words & {word.lower() for word in words}
            if len(present) < settings.min_stop_words:
                return "too few stop words"
        return None


@dataclass(kw_only=True, config=STRICT)
class RepetitionSettings(PerSourceSettings):
    """Gopher's repetition rules by datatrove: repeated lines, paragraphs and word sequences."""

    step: Literal["repetition"] = "repetition"
    dup_line_frac: float | None = 0.3
    """Fraction of repeated lines."""

    dup_para_frac: float | None = 0.3
    """Fraction of repeated paragraphs."""

    top_ngram_factor: float = Field(default=2.0, gt=0)
    """Multiplies Gopher's limits for the fraction of the most frequent 2-, 3- and 4-gram.

    With 1, short abstracts on one substance are dropped.
    """


class RepetitionFilter(DocumentFilter[RepetitionSettings]):
    """datatrove's repetition filter over the words of any language.

    In scripts without spaces each character counts as a word, and a word of the rules as two of
    them: five characters in a row, a turn of phrase as a rule, say nothing of repetition.
    """

    name = "repetition"
    Settings = RepetitionSettings

    def __init__(
        self, settings: RepetitionSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        top = [(n, limit * settings.top_ngram_factor) for n, limit in _TOP_N_GRAMS]
        # datatrove measures the most frequent sequence with spaces between its words, which these
        # scripts do not have
        unspaced_top = [(2 * n, limit * (4 * n - 1) / (2 * n)) for n, limit in top]
        unspaced_duplicated = [(2 * n, limit) for n, limit in _DUPLICATED_N_GRAMS]
        self._spaced = self._gopher(top, _DUPLICATED_N_GRAMS)
        self._unspaced = self._gopher(unspaced_top, unspaced_duplicated)

    def _gopher(
        self, top: Sequence[tuple[int, float]], duplicated: Sequence[tuple[int, float]]
    ) -> GopherRepetitionFilter:
        return GopherRepetitionFilter(
            dup_line_frac=self.settings.dup_line_frac,
            dup_para_frac=self.settings.dup_para_frac,
            top_n_grams=tuple(top),
            dup_n_grams=tuple(duplicated),
            language=Words(),
        )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        is_unspaced = doc.metadata.get("text_language") in _UNSPACED
        result = (self._unspaced if is_unspaced else self._spaced).filter(doc)
        if result is True:
            return True
        return False, str(result[1]).replace("_", " ")
