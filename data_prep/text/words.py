"""Words of a text in any language, with no dictionary: runs of letters and digits.

Each Chinese or Japanese character separately.

What compares texts or counts their words (decontamination, medical, quality, repetition,
duplicates, repeated lines) sees them as `searchable` gives them: without characters that are not
seen and without breaks inside words. The kept text is never changed by it: a zero-width joiner
means something in Persian, in Indic scripts and in emoji.
"""

import re
import unicodedata

from datatrove.utils.word_tokenizers import WordTokenizer

# Han with its extensions, Hiragana, Katakana, Thai: scripts that are written without spaces
UNSPACED_RANGES = (
    "\u0e00-\u0e7f\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
UNSPACED = re.compile(f"[{UNSPACED_RANGES}]")
WORD = re.compile(f"[{UNSPACED_RANGES}]|[^\\W_{UNSPACED_RANGES}]+")
_TOKEN = re.compile(f"[{UNSPACED_RANGES}]|[^\\W{UNSPACED_RANGES}]+|[^\\w\\s]")

# Soft hyphen, grapheme joiner, Arabic letter mark, Hangul and Khmer fillers, Mongolian selectors,
# zero-width space and joiners, marks of direction, word joiner and invisible operators, variation
# selectors, byte order mark, tags; marks of interlinear notes; the stretched joint of Arabic, which
# is seen but says nothing; strokes laid over letters (U+0334 to U+0338)
_INVISIBLE = (
    "\u0334-\u0338"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\u0640\ufff9-\ufffb\U000e0000-\U000e0fff"
)
INVISIBLE = re.compile(f"[{_INVISIBLE}]+")
_BREAK = "[-\u2010\u2011\u00ac\u00ad][ \\t\u00a0]*\\r?\\n[ \\t\u00a0]*"
_LINE_END = re.compile(_BREAK)
_BROKEN_WORD = re.compile(f"(?<=[^\\W\\d_]){_BREAK}(?=[^\\W\\d_])")
_PERHAPS_BREAK = "(?<=[^\\W\\d_])[-\u2010\u2011\u00ac][ \\t\u00a0]+(?=[^\\W\\d_])"
"""A hyphen and a space: of a line's end that was lost ("daugh- ter"), or not ("pre- and post-")."""

_IN_LINE = re.compile(_PERHAPS_BREAK)
_PART_END = re.compile(f"{_BREAK}|{_PERHAPS_BREAK}|\u200b+")
SPACE_MARKUP = re.compile(r"(?i:</?(?:br|p|hr)\s*/?>|&(?:nbsp|ensp|emsp|thinsp|#0*160|#x0*a0);)")
"""Markup that means white space and is left in plain text."""

_LETTERS = f"[^\\W_{UNSPACED_RANGES}]"
WHOLE_WORD = re.compile(
    f"[{UNSPACED_RANGES}]|{_LETTERS}+(?:(?:[{_INVISIBLE}]+|{_BREAK}|{_PERHAPS_BREAK}){_LETTERS}+)*"
)
"""Like WORD, but a word continues over whatever perhaps does not end it.

Those are invisible characters, a hyphen at a line's end, and a hyphen before a space.
"""


def searchable(text: str) -> str:
    """Return a text in the form that is searched and compared.

    No invisible characters, words broken at a line's end joined, spaces for `<br>` and `&nbsp;`.
    """
    if "<" in text or "&" in text:
        text = SPACE_MARKUP.sub(" ", text)
    if not text.isascii():
        text = INVISIBLE.sub(_soft_break, text)
    if "\n" in text and _LINE_END.search(text):
        text = _BROKEN_WORD.sub(_joined, text)
    return text


def _soft_break(match: re.Match[str]) -> str:
    """Return the replacement of invisible characters.

    A soft hyphen before the end of a line stays, for the rule on broken words.
    """
    following = match.string[match.end() : match.end() + 2].lstrip("\r")
    return "\u00ad" if "\u00ad" in match[0] and following[:1] == "\n" else ""


def _joined(match: re.Match[str]) -> str:
    """Return "" where a word continues in the next line.

    A capital behind small letters begins a word of its own ("Non-\nHodgkin").
    """
    left = match.string[match.start() - 1]
    right = match.string[match.end()]
    return match[0] if right.isupper() and not left.isupper() else ""


def parts_of(word: str) -> list[tuple[str, int]]:
    """Return the parts, with their offsets, of a word (see WHOLE_WORD).

    They are parted by what may end a word or not: a hyphen with a line's end or a space behind it,
    a zero-width space.
    """
    parts = []
    start = 0
    for match in _PART_END.finditer(word):
        parts.append((word[start : match.start()], start))
        start = match.end()
    return [*parts, (word[start:], start)]


def is_hidden(text: str) -> bool:
    """Return whether a text holds what WORD cannot tell.

    That is invisible characters, a break that may be inside a word, or markup that means a space.
    """
    if "\n" in text and _LINE_END.search(text):
        return True
    if is_broken_in_line(text) or (("<" in text or "&" in text) and SPACE_MARKUP.search(text)):
        return True
    return not text.isascii() and INVISIBLE.search(text) is not None


def is_broken_in_line(text: str) -> bool:
    """Return whether a text holds a hyphen before a space, at which a word perhaps continues."""
    if text.isascii() and "- " not in text and "-\t" not in text:  # which is far faster
        return False
    return _IN_LINE.search(text) is not None


def plain_words(text: str) -> list[str]:
    """Return the words for comparison.

    Compatible characters unified, no case, no accents, no punctuation.
    """
    return WORD.findall(plain(text))


def plain(text: str) -> str:
    """Return a text in the form that is searched, NFKD-normalised, without case and accents."""
    text = searchable(text)
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    base = [character for character in decomposed if not unicodedata.combining(character)]
    return unicodedata.normalize("NFC", "".join(base))


def count_words(text: str) -> int:
    """Return the number of words.

    Two characters of an unspaced script count as one, the mean length of a word in Chinese.
    """
    text = searchable(text)
    unspaced = len(UNSPACED.findall(text)) if not text.isascii() else 0
    return len(WORD.findall(text)) - unspaced // 2


class Words(WordTokenizer):
    """For datatrove's filters: words and marks of punctuation, in any language, without spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return words and marks."""
        return _TOKEN.findall(searchable(text))

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the lines: no step here needs sentences."""
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of words and marks."""
        return [match.span() for match in _TOKEN.finditer(text)]
