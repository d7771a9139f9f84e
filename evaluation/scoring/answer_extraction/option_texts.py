"""Options named by their text: each is replaced by one sign, so that it is found like a letter.

The letters in "vitamin C", "hepatitis B" or "E. coli" are thereby never taken for labels.
"""

import re
from collections.abc import Mapping

from evaluation.scoring.answer_extraction import languages
from evaluation.scoring.answer_extraction.normalization import without_markup

ALPHABETIC = r"0-9A-Za-zÀ-ɏͰ-ϿЀ-ӿ\u0600-\u065f\u066e-\u06ff\u0900-\u097f"
"""What continues a word; Chinese, Japanese and Korean signs do not."""
SIGNS = "\ue000-\ue0ff"
"""Signs of the private use area stand for the options' texts, as a character range."""
_FIRST_SIGN = 0xE000
_LONG_WORD = 5
_DIPHTHONG = re.compile(r"(?<=[a-z])[ao]?e|\Ao?e", re.IGNORECASE)
_ARTICLE = re.compile(
    r"\A(?:an?|the|les?|la|une?|l['’]|el|los|las|una?|os?|as?|uma?|der|die|das|eine?n?|il|lo|gli)"
    r"(?:\s+|(?<=['’]))(?=\w{3})",
    re.IGNORECASE,
)

_LABEL = re.compile(r"\A\(?([A-Za-z])[.)]\s*")
"""Some question sets repeat the letter in the option's text."""


class OptionTexts:
    """The texts of one question's options."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.signs = {chr(_FIRST_SIGN + i): letter for i, letter in enumerate(options)}
        self.words = yes_no_words(options)
        self._texts = {} if self.words else _distinct_texts(options)
        self._pattern = _alternation(self._texts) if self._texts else None

    def mask(self, text: str) -> str:
        """Return a text with every option's text replaced by its sign."""
        if self._pattern is None:
            return text
        letters = list(self._texts)
        sign_of = {letter: sign for sign, letter in self.signs.items()}
        return self._pattern.sub(lambda match: sign_of[letters[(match.lastindex or 1) - 1]], text)

    def is_one_word(self, letter: str) -> bool:
        """Return whether an option's text is one word."""
        return " " not in self._texts.get(letter, "")

    def is_distinctive(self, letter: str) -> bool:
        """Return whether an option's text is seldom in a sentence by chance."""
        text = self._texts.get(letter, "")
        return not text.isascii() or (len(text) > 3 and not text.isdigit())


def _distinct_texts(options: Mapping[str, str]) -> dict[str, str]:
    """Return the texts to look for, longest first; repeated and one-letter texts are left out."""
    texts: dict[str, str] = {}
    own_labels = [
        label
        for letter, option in options.items()
        if (label := _LABEL.match(option)) and label[1].upper() == letter
    ]
    for letter, option in options.items():
        text = without_markup(option).rstrip(" .。;")
        # one such label may be a part of the text, as in "E. coli"
        text = _ARTICLE.sub("", _LABEL.sub("", text) if len(own_labels) > 1 else text)
        if len(text) > 1 or text.isdigit() or (text and not text.isascii()):
            texts[letter] = text
    lowered = [text.lower() for text in texts.values()]
    unique = [item for item in texts.items() if lowered.count(item[1].lower()) == 1]
    return dict(sorted(unique, key=lambda item: -len(item[1])))


def _alternation(texts: dict[str, str]) -> re.Pattern[str]:
    groups = []
    for text in texts.values():
        words = r"\s+".join(map(_spellings, text.split()))
        left = rf"(?<![{ALPHABETIC}])" if re.match(f"[{ALPHABETIC}]", text) else ""
        right = rf"(?![{ALPHABETIC}])(?!-\w)" if re.match(f"[{ALPHABETIC}]", text[-1]) else ""
        # "5" is no part of "2.5" or "5.2"
        left += r"(?<!\d[.,])" if text[0].isdigit() else ""
        right += r"(?![.,]\d)" if text[-1].isdigit() else ""
        article = r"(?:(?<!\w)(?-i:an?|the)\s+)?" if text.isascii() else ""
        # "ACE" is an option, "ace" a word
        cased = "i" if len(text) > 3 else ""
        # the repeated letter of "A. a. Aspirin"
        groups.append(f"(?{cased}:{left}(?:(?<=[.)] )[a-z][.)]\\s+)?{article}({words}){right})")
    return re.compile("|".join(groups))


def _spellings(word: str) -> str:
    """Return an expression for a word in British and American spelling: "anaemia", "anemia"."""
    if not word.isascii() or len(word) < _LONG_WORD:
        return re.escape(word)
    return _DIPHTHONG.sub("[ao]?e", re.escape(word))


def yes_no_words(options: Mapping[str, str]) -> dict[str, str]:
    """Return every spelling of yes, no and maybe with its letter, if the options are these."""
    words: dict[str, str] = {}
    for letter, text in options.items():
        spellings = [
            group for group in languages.YES_NO_MAYBE.values() if text.strip().lower() in group
        ]
        if not spellings:
            return {}
        words |= dict.fromkeys(spellings[0], letter)
    return words
