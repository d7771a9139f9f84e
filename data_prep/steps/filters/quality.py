"""Gopher's rules for quality and repetition, by datatrove, for clinical prose.

See https://arxiv.org/abs/2112.11446, table A1.

Differences to the defaults there, and why: words are split without spaCy, in any language; words in
unspaced scripts are single characters, so the rules on their length do not apply; abstracts hold
more figures and longer words than the web; stop words by language.
"""

import re

from datatrove.data import Document
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

from data_prep.text.words import Words

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
# Gopher's: length of a sequence, share of the text
_DUPLICATED = [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)]


class QualityFilter(GopherQualityFilter):
    """datatrove's quality filter with stop words and word lengths of the document's language."""

    name = "quality"

    def __init__(
        self,
        min_avg_word_length: float | None,
        max_avg_word_length: float | None,
        max_symbol_word_ratio: float | None,
        max_bullet_lines_ratio: float | None,
        max_ellipsis_lines_ratio: float | None,
        min_alpha_words_ratio: float | None,
        min_stop_words: int | None,
    ) -> None:
        super().__init__(
            min_doc_words=None,
            max_doc_words=None,
            min_avg_word_length=None,
            max_avg_word_length=None,
            max_symbol_word_ratio=max_symbol_word_ratio,
            max_bullet_lines_ratio=max_bullet_lines_ratio,
            max_ellipsis_lines_ratio=max_ellipsis_lines_ratio,
            max_non_alpha_words_ratio=None,
            min_stop_words=None,
            language=Words(),
        )
        self.lengths, self.alpha, self.stops = (
            (min_avg_word_length, max_avg_word_length),
            min_alpha_words_ratio,
            min_stop_words,
        )
        self._stop_words = {
            language: frozenset(words.split()) for language, words in STOP_WORDS.items()
        }

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        language = doc.metadata.get("text_language", "en")
        words = [
            word
            for word in self.language.word_tokenize(_FIGURE.sub("0", doc.text))
            if word[0].isalnum()
        ]
        spelled = [word for word in words if any(map(str.isalpha, word))]
        if not spelled:
            return False, "no words"
        spaced = language not in _UNSPACED
        shortest, longest = self.lengths if spaced else (None, None)
        mean = sum(map(len, spelled)) / len(spelled)
        if shortest is not None and mean < shortest:
            return False, "words too short"
        if longest is not None and mean > longest:
            return False, "words too long"
        if self.alpha is not None and len(spelled) < self.alpha * len(words):
            return False, "too few words with letters"
        stop_words = self._stop_words.get(language)
        if (
            self.stops
            and stop_words
            and len(stop_words & {word.lower() for word in words}) < self.stops
        ):
            return False, "too few stop words"
        result = super().filter(doc)
        return (
            result
            if result is True
            else (False, str(result[1]).removeprefix("gopher_").replace("_", " "))
        )


class RepetitionFilter(GopherRepetitionFilter):
    """datatrove's repetition filter over the words of any language.

    In scripts without spaces each character counts as a word, and a word of the rules as two of
    them: five characters in a row, a turn of phrase as a rule, say nothing of repetition.
    """

    name = "repetition"

    def __init__(
        self, dup_line_frac: float | None, dup_para_frac: float | None, top_ngram_factor: float
    ) -> None:
        top = [(n, share * top_ngram_factor) for n, share in ((2, 0.2), (3, 0.18), (4, 0.16))]
        super().__init__(dup_line_frac=dup_line_frac, dup_para_frac=dup_para_frac, language=Words())
        # datatrove measures the most frequent sequence with spaces between its words, which these
        # scripts do not have
        unspaced = [(2 * n, share * (4 * n - 1) / (2 * n)) for n, share in top]
        self._rules = {
            False: (tuple(top), tuple(_DUPLICATED)),
            True: (tuple(unspaced), tuple((2 * n, share) for n, share in _DUPLICATED)),
        }

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep or drop one document."""
        self.top_n_grams, self.dup_n_grams = self._rules[
            doc.metadata.get("text_language") in _UNSPACED
        ]
        result = super().filter(doc)
        return result if result is True else (False, str(result[1]).replace("_", " "))
