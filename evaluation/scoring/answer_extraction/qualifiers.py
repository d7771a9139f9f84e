"""What denies, limits or takes back a declaration."""

import re

from evaluation.scoring.answer_extraction import languages, reservations
from evaluation.scoring.answer_extraction.choices import Choice
from evaluation.scoring.answer_extraction.languages import pattern

_FLAGS = re.IGNORECASE
_NOT = pattern(languages.NOT)
_WRONG = pattern(languages.WRONG)
_OPTION = pattern(languages.OPTION)
_COPULA = pattern(languages.COPULA)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？؟।\n]")
_SENTENCE = 300
"""Characters of a sentence that are looked at, at most."""
NEGATION = re.compile(_NOT, _FLAGS)
_NEGATED = re.compile(rf"{_NOT}[ \t]*$", _FLAGS)
CALLED_WRONG = re.compile(_WRONG, _FLAGS)
_OPTION_NEGATED = re.compile(
    rf"(?:{_NOT}|{pattern(languages.OR)})[ \t]*+(?:{_COPULA}[ \t]*+)?"
    rf"(?:the |a |an |la |le |a letra |{_OPTION})*+[ \t]*+[(\[\"'“]*+$",
    _FLAGS,
)
_CALLED_WRONG = re.compile(
    rf"(?:{_WRONG}|{_NOT})[ \t]*(?:the |la |le |die )*(?:{pattern(languages.CORRECT)}[ \t]*)?$",
    _FLAGS,
)
_COMPLEMENT = re.compile(
    rf"(?<!what )(?<!which )(?<!\w)(?:is|are|was|est|sont|es|son|é|são|ist|sind|è|sono)[ \t]+"
    r"(?:an? |the |la |les |las |el |a |as |die |le )?"
    rf"(?:more \w+ |{pattern(languages.CORRECT)} ?)*$",
    _FLAGS,
)
_OTHERS = re.compile(
    r"(?<!\w)(?:others?|remaining|rest of|following|autres?|otr[ao]s|demais|outr[ao]s|anderen?|"
    r"altr[aei]|остальны\w+|другие)(?!\w)|其他|其余|他の",
    _FLAGS,
)
_DENIED = re.compile(
    rf"[ \t]*+[)\]\"'”]*+[ \t]*+(?:{_OPTION})?"
    rf"(?:[ \t]*+{_COPULA}|[ \t]*+(?:seems|looks|can|may|might|could)(?!\w))?[ \t]*+"
    r"(?:therefore |thus |also |definitely |clearly |be |donc |も)?"
    # "C, not A" and "C not A" deny another option
    rf"(?:{_WRONG}|{_NOT})(?![ \t]*[(\[\"']?(?-i:[A-Jأبجد])(?![\w']))",
    _FLAGS,
)
_NEGATED_AFTER = re.compile(r"[^.。,،\n]{0,8}?(?:아니|아닙|않|ではな|でな|ない|नहीं)")
_CONDITION = re.compile(pattern(reservations.CONDITION), _FLAGS)
_HEDGE = re.compile(
    r"(?<!\w)(?:might|could|may|perhaps|possibly|peut-être|pourrait|podría|poderia|könnte|potrebbe"
    r"|может быть|возможно)(?!\w)|可能是|かもしれ",
    _FLAGS,
)
_IF = re.compile(r"(?<!\w)(?:if|unless|depending|wenn|falls|s'il|если)(?!\w)|如果|もし", _FLAGS)
_WOULD = re.compile(
    r"(?<!\w)(?:would|could|might|serait|sería|seria|wäre|könnte|sarebbe|бы)(?!\w)", _FLAGS
)
_DENIED_THEN = re.compile(
    r"[ \t]*,? (?:but|however|yet),? (?:this|that|it|which) (?:is|was|would be|does|can)"
    r"(?:n't| not)",
    _FLAGS,
)
_QUESTION = re.compile(r"[ \t]*[)\]*\"]*[ \t]*[?？؟]")
_RETRACTION = re.compile(pattern(reservations.RETRACTION), _FLAGS)


def sentence_start(text: str, position: int) -> int:
    """Return where the sentence around a position begins."""
    start = max(position - _SENTENCE, 0)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, start, position)]
    return ends[-1] if ends else start


def sentence_end(text: str, position: int, limit: int) -> int:
    """Return where the sentence around a position ends, within a number of characters."""
    match = _SENTENCE_END.search(text, position, position + limit)
    return match.start() if match else min(position + limit, len(text))


def holds(text: str, choice: Choice, start: int, hedges: bool = True) -> bool:
    """Return whether a declaration from `start` to the choice is meant for this question.

    It is not if it is denied, asked, one of several alternatives, or hangs on a condition.

    Args:
        text: the answer.
        choice: the options that are declared.
        start: where the declaration begins.
        hedges: whether "might" and its like before the declaration count.
    """
    if choice.hedged or is_denied(text, choice.end) or _QUESTION.match(text, choice.end):
        return False
    begin = sentence_start(text, start)
    if _CONDITION.search(text, begin, choice.start):
        return False
    if hedges and _HEDGE.search(text, max(start - 25, begin), choice.start):
        return False
    # "the answer would be C if …"
    condition = _IF.search(text, choice.end, sentence_end(text, choice.end, 100))
    return not (condition and _WOULD.search(text, start, condition.start()))


def is_of_others(text: str, position: int) -> bool:
    """Return whether a noun is of the wrong options: "the wrong answer", "other options"."""
    if _CALLED_WRONG.search(text, max(position - 30, 0), position):
        return True
    begin = max(position - 40, sentence_start(text, position))
    return _OTHERS.search(text, begin, position) is not None


def is_complement(text: str, position: int) -> bool:
    """Return whether a noun is said of something before it: "C is the correct answer: …"."""
    return _COMPLEMENT.search(text, max(position - 45, 0), position) is not None


def is_negated(text: str, position: int) -> bool:
    """Return whether "not" stands before a position."""
    return _NEGATED.search(text, max(position - 12, 0), position) is not None


def is_option_negated(text: str, position: int) -> bool:
    """Return whether an option at a position is dropped: "not the option A", "neither A or B"."""
    return _OPTION_NEGATED.search(text, max(position - 25, 0), position) is not None


def is_negated_after(text: str, position: int) -> bool:
    """Return whether the verb at a position is negated, as in Japanese, Korean and Hindi."""
    return _NEGATED_AFTER.match(text, position) is not None


def is_denied(text: str, position: int) -> bool:
    """Return whether what comes before a position is called wrong: "A is incorrect"."""
    return bool(_DENIED.match(text, position) or _DENIED_THEN.match(text, position))


def retractions(text: str) -> list[int]:
    """Return where the model takes back what it declared before."""
    return [match.start() for match in _RETRACTION.finditer(text)]
