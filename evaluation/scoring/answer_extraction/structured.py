"""Answers in a machine-readable form: JSON fields, `\\boxed{…}`, tags, double brackets."""

import re

from evaluation.scoring.answer_extraction.choices import ChoiceReader
from evaluation.scoring.answer_extraction.declarations import Certainty, Declaration
from evaluation.scoring.answer_extraction.option_texts import SIGNS

_KEY = (
    r"(?:(?:final|correct|selected|chosen|best|predicted|model|my)[ _-]?)?"
    r"(?:answers?|choices?|options?|letters?|labels?|prediction|response|result|selection|correct)"
    r"(?:[ _-]?(?:choices?|letters?|idx|index|options?|labels?|key|text|id|value))?"
    r"|(?:bonne )?réponses?(?: finale)?|reponses?|respuestas?|respostas?|antwort(?:en)?|risposta"
    r"|(?:правильный )?ответ|(?:正确|最终)?答案|(?:正确)?选项|選択肢|回答|答え|正解|정답|답"
    r"|(?:ال)?(?:إجابة|اجابة|جواب)|उत्तर"
)
_FIELD = re.compile(
    rf"[\"'](?:{_KEY})[\"']\s*:\s*(?:\"(?P<double>[^\"\n]{{0,300}})\"|'(?P<single>[^'\n]{{0,300}})'"
    r"|\[(?P<list>[^\[\]{}]{0,300})\]|(?P<bare>[^\s,\"'}{\[]{1,20}))",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?P<box>[^{}]{0,300})\}")
_TAG = re.compile(
    r"<(?P<tag>(?:final_?|correct_?)?(?:answer|choice|option|response|solution))>\s*"
    r"(?P<tagged>[^<]{0,300}?)\s*</(?P=tag)>",
    re.IGNORECASE,
)
_DOUBLE_BRACKETS = re.compile(r"\[\[(?P<brackets>[^\[\]]{1,40})\]\]|<<(?P<angles>[^<>]{1,40})>>")
_SIGN = re.compile(f"[{SIGNS}]")
_QUOTE = re.compile(r"[\"']")
_SHARED = 0.8
"""Fraction of an option's words that make it the option's text."""
_PADDING = re.compile(r"[\s.。;,!)\]}\"'*]*+")


def declarations(text: str, choices: ChoiceReader) -> list[Declaration]:
    """Return the structured answers of a text."""
    found: list[Declaration] = []
    for form in (_FIELD, _BOX, _TAG, _DOUBLE_BRACKETS):
        for match in form.finditer(text):
            letters = value_letters(_QUOTE.sub(" ", _value(match)), choices)
            if letters:
                found.append(Declaration(Certainty.STRUCTURED, match.end(), letters))
    return found


def _value(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return next(value for name, value in groups.items() if name != "tag" and value is not None)


def value_letters(value: str, choices: ChoiceReader) -> str:
    """Return the letters of a text that is nothing but options, with or without their texts."""
    choice = choices.at(value, 0)
    if choice is None or choice.hedged:
        return ""
    rest = value[choice.end :]
    if _PADDING.fullmatch(rest):
        return choice.letters
    # after its complete text, the same words explain the option
    is_complete = _SIGN.search(value, choice.start, choice.end)
    if is_complete or not _is_own_text(rest, choice.letters, choices):
        return ""
    return choice.letters


def _is_own_text(rest: str, letters: str, choices: ChoiceReader) -> bool:
    """Return whether what follows one letter is a part of its option's text: "(C) Torsades"."""
    words = re.findall(r"\w+", rest.lower())
    own = re.findall(r"\w+", choices.options.get(letters, "").lower())
    if not words or not own or len(words) > 2 * len(own):
        return False  # an explanation may repeat the option's words
    shared = len(set(words) & set(own))
    return shared == len(set(words)) or (shared > 1 and shared >= _SHARED * len(set(own)))
