"""Verdicts on the options, one by one: "A) false, B) true", "A ✗ B ✓"."""

import re
from collections.abc import Iterator

from evaluation.scoring.answer_extraction import languages
from evaluation.scoring.answer_extraction.choices import ChoiceReader
from evaluation.scoring.answer_extraction.declarations import Certainty, Declaration
from evaluation.scoring.answer_extraction.languages import pattern

_RIGHT_WORD = pattern(languages.CORRECT, {"en": "yes", "fr": "oui|vrai", "de": "ja", "zh": "对"})
_WRONG_WORD = pattern(languages.WRONG, {"en": "no", "de": "nein"})
_MARK = re.compile(
    rf"[ \t]*[).:,、—–-]*[ \t]*(?:(?:is|es|é|est|ist|è)[ \t]+)?"
    rf"(?:(?P<right>[✓✔✅☑○◯〇⭕]|{_RIGHT_WORD})|(?P<wrong>[✗✘❌×❎]|{_WRONG_WORD}))"
    r"(?=[ \t]*(?:[.,;:。、(]|$|\n|[\W_]*[A-Za-zأبجд][).:]))",
    re.IGNORECASE,
)


def verdicts(text: str, choices: ChoiceReader) -> dict[str, bool]:
    """Return the letters that are called right or wrong on their own, and which."""
    found: dict[str, bool] = {}
    position = 0
    while mention := choices.patterns.mention.search(text, position):
        choice = choices.at(text, mention.start())
        position = max(mention.end(), choice.end if choice else 0)
        letters = choice.letters if choice else choices.patterns.letters.get(mention[0], "")
        mark = _MARK.match(text, position) or _MARK.match(text, mention.end())
        if mark and len(letters) == 1:
            found[letters] = mark["right"] is not None
    return found


def only_right(found: dict[str, bool]) -> Iterator[Declaration]:
    """Yield the only option that is called right where others are called wrong."""
    right = [letter for letter, is_right in found.items() if is_right]
    if len(right) == 1 and len(found) > 1:
        yield Declaration(Certainty.VERDICT, 0, right[0])
