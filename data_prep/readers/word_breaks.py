"""Words broken by a hyphen at a line's end.

The hyphen belongs to the word ("follow-up") or only to the line ("infor-mation").
"""

import functools
import gzip
import importlib.resources
import json
import re
from collections import Counter

_LISTS = ("ar", "de", "en", "es", "fa", "fr", "it", "nl", "pt", "ru")
_CLOSED_COMPOUNDS = ("de", "nl", "sv", "da", "no", "nb", "nn", "fi", "hu", "is", "et")
_RARE = 50
"""Occurrences up to which the lists hold misspellings ("followup")."""

_SAMPLE = 3000
_SUSPENDED = frozenset(
    [
        "and",
        "or",
        "to",
        "und",
        "oder",
        "bzw",
        "sowie",
        "bis",
        "et",
        "ou",
        "y",
        "o",
        "e",
        "u",
        "en",
        "of",
        "och",
        "eller",
        "og",
        "и",
        "или",
    ]
)
"""Words behind a half that a later word completes.

"Haupt- und Nebenwirkungen", "pre- and postoperative".
"""

_CLOSED_PREFIXES = frozenset(
    [
        "angio", "bio", "broncho", "cardio", "chemo", "cyto", "electro", "endo", "epi", "extra",
        "gastro", "haemo", "hemo", "hepato", "hyper", "hypo", "immuno", "inter", "intra", "micro",
        "mono", "multi", "myo", "nephro", "neuro", "osteo", "para", "patho", "peri", "pharmaco",
        "photo", "physio", "poly", "psycho", "radio", "sub", "super", "thermo", "trans", "ultra",
        "vaso",
    ]
)  # fmt: skip
_PARTICIPLE = re.compile(r"\w{3,}(?:ed|ing)")
_BRITISH = re.compile(r"is(e[drs]?|ing|ations?)$")
_LAST_LETTERS = re.compile(r"[^\W\d_]*$")
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010\u2011][^\W\d_]+)*")


class WordBreaks:
    """Joins the broken words of one document.

    Args:
        text: the document, in which a broken word ends with a hyphen at a line's end.
        language: of the text, in two letters; None finds out.
    """

    def __init__(self, text: str, language: str | None = None) -> None:
        self._text = text
        self._language = language
        self._written: Counter[str] | None = None

    def separator(self, left: str, right: str) -> str:
        """Return the separator within a line between the parts of a word broken at a line's end.

        It is "", "-" or "- ".
        """
        if not left or not left[-1].isalpha() or not right[:1].isalpha():
            return "-"
        if right.strip(".,;:)").lower() in _SUSPENDED:
            return "- "
        first, _, rest = _letters(right).partition("-")
        is_one_word = (
            self._is_known(_last_letters(left), first)
            if rest
            else self._is_one_word(_last_letters(left), first)
        )
        return "" if is_one_word else "-"

    def _is_known(self, left: str, right: str) -> bool:
        """Return whether a word that continues with a hyphen is known.

        True of "infor-mation-based", not of "state-of-the-art".
        """
        joined = (left + right).lower()
        return self._words()[joined] > 0 or joined in word_list(self._language or "")

    def _is_one_word(self, left: str, right: str) -> bool:
        if right[:1].isupper() and not left.isupper():
            return False
        if len(left) == 1 or not right:
            return False  # "T-cell", "β-blocker", "e-mail"
        left = left.lower()
        right = right.lower()
        written = self._words()
        together = written[left + right]
        apart = written[f"{left}-{right}"]
        if together or apart:
            return together >= apart
        known = word_list(self._language or "")
        if left + right in known or _BRITISH.sub(r"iz\1", left + right) in known:
            return True
        if self._language in _CLOSED_COMPOUNDS or left in _CLOSED_PREFIXES:
            return True
        if self._language == "en" and left in known and _PARTICIPLE.fullmatch(right):
            return False  # "patient-centred", "drug-eluting"
        return not all(half in known or written[half] for half in (left, right))

    def _words(self) -> Counter[str]:
        """Return how often the document has each word, those at a break left out."""
        if self._written is None:
            inside = re.sub(
                r"[^\s]*[-\u2010\u00ad\ufffe\x02][ \t]*\r?\n[ \t]*[^\s]*", " ", self._text
            )
            self._written = Counter(
                word.lower().replace("\u2010", "-").replace("\u2011", "-")
                for word in _WORD.findall(inside)
            )
            if self._language is None:
                self._language = _language_of(self._text[:_SAMPLE])
        return self._written


def _last_letters(word: str) -> str:
    match = _LAST_LETTERS.search(word)
    return match[0] if match else ""


def _letters(word: str) -> str:
    match = _WORD.match(word)
    return match[0] if match else word


def _language_of(text: str) -> str:
    from data_prep.text.language_identification import language_fractions

    return next(iter(language_fractions(text)), "")


@functools.cache
def word_list(language: str) -> frozenset[str]:
    """Return the words of a language; none for one without a list."""
    if language not in _LISTS:
        return frozenset()
    compressed = importlib.resources.files("spellchecker") / "resources" / f"{language}.json.gz"
    counts: dict[str, int] = json.loads(gzip.decompress(compressed.read_bytes()))
    return frozenset(word for word, count in counts.items() if count > _RARE)
