"""Recognition of the options that a text names at a position, by letter or by text."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from evaluation.scoring.answer_extraction import languages
from evaluation.scoring.answer_extraction.labels import (
    is_following,
    is_label,
    label_patterns,
    uses_russian_order,
)
from evaluation.scoring.answer_extraction.languages import pattern
from evaluation.scoring.answer_extraction.option_texts import OptionTexts

Options = Mapping[str, str]

_CLOSE = re.compile(r"[ \t)\]}】」』》\"'”’»>]*+")
_OPENING_BRACKETS = tuple("([{【「『《\"'“‘«„<")
_MOST = 25
"""Further letters of a list at most."""
# "e" is Portuguese for "and", "E" an option
_AND = f"(?-i:{pattern(languages.AND)})"
_SEPARATOR = re.compile(
    rf"[ \t]*(?:[,、;/&+،][ \t]*(?:{_AND}[ \t]*)?|{_AND}[ \t]*|و[ \t]?(?=[A-Zأبجده]))(?=\S)",
    re.IGNORECASE,
)
_OR = re.compile(rf"[ \t]*[,/]?[ \t]*(?-i:{pattern(languages.OR)})[ \t]*", re.IGNORECASE)
_BEGINS_CLAUSE = re.compile(
    r"[ \t]+(?:is|was|would|can|has|est|n'est|es|no|é|não|ist|è|non)(?!\w)"
    rf"(?![ \t]*{pattern(languages.CORRECT)})",
    re.IGNORECASE,
)
"""After "C, A …" such a word begins a clause about A."""
_WORD_ENDS = re.compile(
    r"\s*(?:[.,:;!()\[\]\"'”’»«}…–—/、。،-]|$|\n|です|だ|的|입니다|है"
    r"|(?:because|since|as|car|parce|porque|pois|weil|da|perché|потому|так)(?!\w))",
    re.IGNORECASE,
)
_COMPACT_ENDS = re.compile(r"\s*(?:[.,;:!)\]」』】\"'。、]|$|\n|[\u3040-\u9fff\uac00-\ud7a3])")
_LABEL_AFTER_TEXT = re.compile(
    rf"[ \t]*[(\[](?:{pattern(languages.OPTION, languages.ANSWER)}[ \t]*)?([^\W\d_])[)\]]",
    re.IGNORECASE,
)
"""The option's letter in brackets after its text."""
_ENDS_IN_ARTICLE = re.compile(r"(?<!\w)an? $")
_WORDS = re.compile(r"\w+")
_LONG = 5
"""Letters of a word that is no chance match."""
_NEXT_WORD = re.compile(r"[ \t]+([^\W\d_]+)")


@dataclass(frozen=True)
class Choice:
    """One or several options named at a position of a text."""

    letters: str
    start: int
    end: int
    by_text: bool = False
    """The option's text, not its letter."""
    delimited: bool = False
    """In brackets, or followed by one."""
    with_text: bool = False
    """The letter and its option's text, or the beginning of it."""
    hedged: bool = False
    """One of several alternatives, or a range: "A or B", "A to D"."""


class ChoiceReader:
    """Reads options of one question in texts that `mask` prepared."""

    def __init__(self, options: Options) -> None:
        self.options = dict(options)
        self.texts = OptionTexts(options)
        self.patterns = label_patterns(tuple(options), tuple(self.texts.words))

    @property
    def is_yes_no(self) -> bool:
        """Whether the options are yes, no and maybe."""
        return bool(self.texts.words)

    def at(self, text: str, position: int) -> Choice | None:
        """Return the choice that begins at a position, with all letters of a list."""
        first = self._single(text, position)
        if first is None:
            return None
        letters = first.letters
        end = first.end
        in_doubt = False
        for _ in range(_MOST):
            separator = _SEPARATOR.match(text, end)
            if separator is None:
                break
            following = self._single(text, separator.end())
            if following is None or following.by_text != first.by_text:
                in_doubt = self._is_open(text, separator)
                break
            if following.letters in letters:
                break  # "of B and C, C is …"
            if "," in separator[0] and _BEGINS_CLAUSE.match(text, following.end):
                break
            letters += following.letters
            end = following.end
        ordered = "".join(letter for letter in self.options if letter in letters)
        hedged = in_doubt or self._is_hedged(text, end, letters)
        return dataclasses.replace(first, letters=ordered, end=end, hedged=hedged)

    def _is_open(self, text: str, separator: re.Match[str]) -> bool:
        """Return whether "C and A …" may or may not go on with a label."""
        following = self.patterns.mention.match(text, separator.end())
        return bool(following and following[0].isupper() and separator[0].strip() != ",")

    def _is_hedged(self, text: str, end: int, letters: str) -> bool:
        if self.patterns.range_end.match(text, end):
            return True
        alternative = _OR.match(text, end)
        other = self._single(text, alternative.end()) if alternative else None
        # "B, or acetylcholine" is one option
        return other is not None and other.letters != letters

    def _single(self, text: str, position: int) -> Choice | None:
        match = self.patterns.option.match(text, position)
        if match is None:
            return None
        if match["sign"]:
            return self._by_sign(text, match)
        if match["word"]:
            return self._by_word(text, match)
        spelled = match["compact"] or match["label"]
        letters = self._compact(text, match) if match["compact"] else self._letter(spelled, text)
        if not letters or _is_cut_off_word(text, match):
            return None
        end = _after_closing(text, match.end())
        opened = text[match.start() : match.start(match.lastgroup or 0)].rstrip()[-1:]
        delimited = text[match.end() : end].strip() != "" or opened in _OPENING_BRACKETS
        own = self._own_text_end(text, end, letters)
        is_certain = own is not None or delimited
        option = self.options.get(letters, "")
        if not is_certain and not is_label(text, match.end(), spelled, option):
            return None
        with_text = own is not None or _begins_with(text[end : end + 80], option)
        return Choice(letters, match.start(), own or end, delimited=delimited, with_text=with_text)

    def _by_sign(self, text: str, match: re.Match[str]) -> Choice | None:
        letter = self.texts.signs.get(match["sign"], "")
        following = _NEXT_WORD.match(text, match.end())
        if following and self.texts.is_one_word(letter) and not is_following(following[1]):
            return None  # "iron deficiency" is not "iron"
        end = _after_closing(text, match.end())
        label = _LABEL_AFTER_TEXT.match(text, match.end())
        if label and self.patterns.letters.get(label[1]) == letter:
            return Choice(letter, match.start(), label.end(), delimited=True, with_text=True)
        return Choice(letter, match.start(), end, by_text=True)

    def _by_word(self, text: str, match: re.Match[str]) -> Choice | None:
        if not _WORD_ENDS.match(text, match.end()):
            return None
        letter = self.texts.words[match["word"].lower()]
        return Choice(letter, match.start(), _after_closing(text, match.end()))

    def _compact(self, text: str, match: re.Match[str]) -> str:
        """Return "ABD" as letters, if it is no word or abbreviation."""
        letters: str = match["compact"]
        order = [list(self.options).index(letter) for letter in letters]
        is_ascending = order == sorted(set(order))
        return letters if is_ascending and _COMPACT_ENDS.match(text, match.end()) else ""

    def _letter(self, spelled: str, text: str) -> str:
        if spelled == "В" and uses_russian_order(text):
            return "C" if "C" in self.options else ""
        return self.patterns.letters.get(spelled, "")

    def _own_text_end(self, text: str, end: int, letters: str) -> int | None:
        """Return where the option's own text ends, if it follows its letter."""
        match = self.patterns.option_text.match(text, end)
        if match is None:
            return None
        if match["word"]:
            named = self.texts.words[match["word"].lower()]
        else:
            named = self.texts.signs.get(match["sign"], "")
        return _after_closing(text, match.end()) if named == letters else None


def _is_cut_off_word(text: str, match: re.Match[str]) -> bool:
    """Return whether a letter at the very end is the beginning of a word: "due to a f"."""
    label = match["label"] or ""
    before = text[: match.end() - len(label)]
    return label.islower() and match.end() == len(text) and bool(_ENDS_IN_ARTICLE.search(before))


def _begins_with(rest: str, option: str) -> bool:
    """Return whether a text begins with two words of an option, or with a long one."""
    words = _WORDS.findall(rest.lower())[:2]
    own = _WORDS.findall(option.lower())[:2]
    if not words or not own or words[0] != own[0]:
        return False
    return words == own if len(own) > 1 else len(own[0]) >= _LONG


def _after_closing(text: str, end: int) -> int:
    """Return the position after closing brackets and quotes, if there are any."""
    match = _CLOSE.match(text, end)
    if match is None or not match[0].strip():
        return end
    opens_quote = match[0][0] in " \t" and match[0][-1] in "\"'"
    begins_word = text[match.end() : match.end() + 1].isalnum()
    return end if opens_quote and begins_word else match.end()


@lru_cache(maxsize=64)
def _reader(options: tuple[tuple[str, str], ...]) -> ChoiceReader:
    return ChoiceReader(dict(options))


def reader(options: Options) -> ChoiceReader:
    """Return the reader of a question's options; the latest readers are cached."""
    return _reader(tuple(options.items()))
