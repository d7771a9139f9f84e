"""Light stemming of Arabic words.

Light10 (Larkey, Ballesteros, Connell 2007, https://doi.org/10.1007/978-1-4020-6046-5_12).

Snowball's Arabic stemmer takes the first letter of a word such as "فيروس" for a conjunction, so
that a word with and without the definite article has two stems; here it has one.
"""

import re

_ARTICLES = ("وال", "بال", "كال", "فال", "ال", "لل")
_SUFFIXES = ("ها", "ان", "ات", "ون", "ين", "يه", "ه", "ي")
_SHORTEST = 3  # letters; with the two of light10 common short words meet the stems of terms
_UNIFIED = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ى": "ي", "ة": "ه", "ـ": None})
_MARKS = re.compile("[\u064b-\u0652\u0670]")


class ArabicStemmer:
    """Strips the conjunction "wa", the definite article with its prefixes, and endings."""

    def stemWord(self, word: str) -> str:
        """Return the stem of a word."""
        word = _MARKS.sub("", word).translate(_UNIFIED)
        if word.startswith("و") and not word.startswith("وال") and len(word) > 4:
            word = word[1:]
        for article in _ARTICLES:
            if word.startswith(article) and len(word) >= len(article) + _SHORTEST:
                word = word[len(article) :]
                break
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and len(word) >= len(suffix) + _SHORTEST:
                word = word[: -len(suffix)]
        return word
