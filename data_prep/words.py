"""Words of a text in any language, with no dictionary: runs of letters and digits; each Chinese or Japanese character by itself."""

import re
import unicodedata

from datatrove.utils.word_tokenizers import WordTokenizer

# Han with its extensions, Hiragana, Katakana, Thai: scripts that are written without spaces
_UNSPACED = "\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = re.compile(f"[{_UNSPACED}]")
WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
_TOKEN = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+|[^\\w\\s]")


def plain_words(text: str) -> list[str]:
    """Return the words for comparison: compatible characters unified, no case, no accents, no punctuation."""
    return WORD.findall(plain(text))


def plain(text: str) -> str:
    """Return a text with compatible characters unified, without case and accents."""
    if text.isascii():
        return text.lower()
    split = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFC", "".join(character for character in split if not unicodedata.combining(character)))


def count_words(text: str) -> int:
    """Return the number of words; two characters of an unspaced script count as one, the mean length of a word in Chinese."""
    unspaced = len(UNSPACED.findall(text)) if not text.isascii() else 0
    return len(WORD.findall(text)) - unspaced // 2


class Words(WordTokenizer):
    """For datatrove's filters: words and marks of punctuation, in any language, without spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return words and marks."""
        return _TOKEN.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the lines: no step here needs sentences."""
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of words and marks."""
        return [found.span() for found in _TOKEN.finditer(text)]
