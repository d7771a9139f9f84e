"""Letters that label an option, told from articles, pronouns and abbreviations."""

import re
from dataclasses import dataclass
from functools import lru_cache

from evaluation.scoring.answer_extraction import languages
from evaluation.scoring.answer_extraction.languages import pattern
from evaluation.scoring.answer_extraction.option_texts import ALPHABETIC, SIGNS

_NOTHING = chr(0xF8FF)
_OPEN = r"[\s(\[{【「『《\"'“‘«„<]*+"
_DETERMINER = (
    r"(?:(?:an? )?combination of\s+"
    r"|(?-i:the|both|la|le|les|el|los|las|lo|il|gli|o|os|a|as|de|der|die|das|un|una)\s+"
    r"|(?-i:l['’]|d['’]))"
)
_LEAD = rf"{_OPEN}(?:(?:{_DETERMINER}|{pattern(languages.OPTION)}\s*:?)\s*{_OPEN}){{0,4}}"
_BEFORE = rf"(?<![{ALPHABETIC}])(?<![{ALPHABETIC}][-'’])"
_AFTER = rf"(?![{ALPHABETIC}])(?!['’-][{ALPHABETIC}])"
_FOLLOWING = re.compile(rf"(?:{'|'.join(languages.FOLLOWING.values())})", re.IGNORECASE)
_WORD = re.compile(r"\s*([^\W\d_]+)")
_DELIMITER = re.compile(rf"\s*i\.\s?e\.|\s*[.,:;!?()\]}}。、؛،؟…/&+|–—=>{SIGNS}-]")
_LINE_END = re.compile(r"[ \t]*\n")
_ABBREVIATION = re.compile(r"\.\s?[a-zа-я]|\.?\w*\.\w")
_KIND = re.compile(r"\s?(?:细胞|細胞|型|族|级|期|세포|형)")
_UNSPACED = re.compile(r"\s?[\u0600-\u06ff\u0900-\u0dff\u3040-\u9fff\uac00-\ud7a3]")
_PRONOUN_ENDS = re.compile(r"\s*(?:[.:;)]|is\b|because\b|since\b)")
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_RUSSIAN_ORDER = re.compile(r"(?<!\w)[БГ](?=[).:])")


@dataclass(frozen=True)
class LabelPatterns:
    """Expressions for one set of letters."""

    letters: dict[str, str]
    """Every spelling of a label, and its letter."""
    option: re.Pattern[str]
    """An option after its articles and brackets: `sign`, `word`, `compact` or `label`."""
    option_text: re.Pattern[str]
    """The sign or word that repeats an option after its letter."""
    mention: re.Pattern[str]
    """Any sign or letter."""
    range_end: re.Pattern[str]
    """The end of "A to D"."""


@lru_cache(maxsize=128)
def label_patterns(letters: tuple[str, ...], words: tuple[str, ...]) -> LabelPatterns:
    """Return the expressions for a question's letters and its words of yes and no."""
    table = _spellings(letters)
    label = f"[{''.join(map(re.escape, table)) or _NOTHING}]"
    capitals = "".join(letter for letter in table if letter in letters and letter.isupper())
    spelled = "|".join(_whole(word) for word in sorted(words, key=len, reverse=True)) or _NOTHING
    option = (
        rf"{_LEAD}(?:(?P<sign>[{SIGNS}])"
        rf"|{_BEFORE}(?P<compact>(?-i:[{capitals or _NOTHING}]{{2,10}})){_AFTER}"
        rf"|{_BEFORE}(?P<word>{spelled})"
        rf"|{_BEFORE}(?P<label>{label}){_AFTER})"
    )
    return LabelPatterns(
        letters=table,
        option=re.compile(option, re.IGNORECASE),
        option_text=re.compile(
            rf"\s*(?:[.:,、)(–—-]*|\(?i\.\s?e\.,?)\s*(?:(?P<sign>[{SIGNS}])|(?P<word>{spelled}))",
            re.IGNORECASE,
        ),
        mention=re.compile(rf"[{SIGNS}]|{_BEFORE}{label}{_AFTER}", re.IGNORECASE),
        range_end=re.compile(
            rf"\s*(?:through|to|-|–|bis|à|~|〜)\s*{_OPEN}{label}{_AFTER}", re.IGNORECASE
        ),
    )


def _spellings(letters: tuple[str, ...]) -> dict[str, str]:
    table = {letter: letter for letter in letters if len(letter) == 1}
    for letter in list(table):
        table.setdefault(letter.lower(), letter)
    for sign, latin in languages.LOOKALIKES.items():
        if latin in table:
            table.setdefault(sign, latin)
    return table


def _whole(word: str) -> str:
    return re.escape(word) + (r"(?!\w)" if word[-1] < "\u3000" else "")


def is_following(word: str) -> bool:
    """Return whether a word may follow a bare letter in a sentence: "C because"."""
    return _FOLLOWING.fullmatch(word) is not None


def is_label(text: str, end: int, spelled: str, option: str) -> bool:
    """Return whether a bare letter that ends at a position is a label.

    Args:
        text: the answer.
        end: the position after the letter.
        spelled: the letter as written.
        option: the text of the option that it would label.
    """
    rest = text[end : end + 60]
    if not rest.strip() or _LINE_END.match(rest):
        # a lower-case "a" at the very end may be a cut-off article
        return spelled != "a" or "\n" in rest or not text[:end].strip(" a")
    if spelled in ("I", "i") and not _PRONOUN_ENDS.match(rest):
        return False
    if _begins_option(rest, option):
        return True
    if _ABBREVIATION.match(rest):  # "E. coli", "e.g."
        word = re.match(r"\.\s([^\W\d_]+)", rest)
        return bool(word and is_following(word[1]))
    if _DELIMITER.match(rest):
        return spelled.isupper() or not rest.startswith(",") or len(text) < 40
    if _KIND.match(rest):
        return False
    if _UNSPACED.match(rest):
        return True
    return _may_precede_word(rest, spelled, option)


def _begins_option(rest: str, option: str) -> bool:
    """Return whether a letter, a full stop and words of its option follow each other."""
    if not rest.startswith((".", ")")):
        return False
    words = _LONG_WORD.findall(rest.split("\n")[0].lower())[:4]
    return bool(set(words) & set(_LONG_WORD.findall(option.lower())))


def _may_precede_word(rest: str, spelled: str, option: str) -> bool:
    word = _WORD.match(rest)
    if word is None or not spelled.isupper():
        return False
    if spelled in languages.LOOKALIKES:
        return False  # Russian prepositions
    if is_following(word[1]) or option.lower().startswith(word[1].lower()):
        return True
    return word[1][0].isupper() and spelled not in "AEIOY"


def uses_russian_order(text: str) -> bool:
    """Return whether the options are counted А, Б, В, Г."""
    return _RUSSIAN_ORDER.search(text) is not None
