"""Sentences that declare an option as the answer, with the certainty of each form."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from evaluation.scoring.answer_extraction import languages, qualifiers
from evaluation.scoring.answer_extraction.choices import Choice, ChoiceReader
from evaluation.scoring.answer_extraction.languages import pattern
from evaluation.scoring.answer_extraction.option_texts import SIGNS


class Certainty(IntEnum):
    """How certain a form declares the answer; a less certain one never outweighs a more certain."""

    PLAUSIBLE = 0
    """One of several statements is called likely, reasonable or appropriate."""
    VERDICT = 1
    """One of several statements is called correct: "C is correct"."""
    CONCLUSION = 2
    """"The most likely diagnosis is" and an option's text; the conclusion's only option."""
    CHOSEN = 3
    """"The most likely cause is (C)", "leaving C", a last line that is an option."""
    DECLARED = 4
    """"The answer is C", "C is the correct answer", "I choose C", or a first line that is C."""
    STRUCTURED = 5
    """A field of JSON, a box, a tag."""


@dataclass(frozen=True)
class Declaration:
    """Options declared as the answer."""

    certainty: Certainty
    position: int
    letters: str


_FLAGS = re.IGNORECASE
_WINDOW = 240
"""Characters between a noun such as "answer" and the option at most."""
_ADVERB = (
    r"(?:[ ,]*(?:\w+ly|thus|then|also|hence|most likely|probably|donc|alors|por (?:lo )?tanto|"
    r"entonces|portanto|então|logo|daher|also|somit|folglich|quindi|dunque|pertanto|следовательно|"
    r"therefore|likewise|still|either)(?!\w),?)*+"
)
_COPULA = pattern(languages.COPULA)
_LINK = re.compile(
    rf"[ \t\])】」』\"']*+(?:{_COPULA}{_ADVERB}[ \t]*+[:：]?|[:=→➡⇒—–>-]++)\s*+|[】」』]\s*+",
    _FLAGS,
)
_NEWLINE = re.compile(r"[ \t:]*+\n\s*+")
_BETWEEN = re.compile(r"[\s.;,•–-]*+")
_HEADING = 25
"""Characters before "answer" in a heading at most."""
_OPTION_NOUN = pattern(languages.OPTION)
_OPTIONS_HEADING = re.compile(
    r"(?<!correct )(?<!right )(?<!best )(?<!\w)(?:options|choices)(?: \w+){0,3}\s*[:：]\s*\n\s*$",
    _FLAGS,
)
_OPTIONS_ARE = re.compile(rf"{_OPTION_NOUN}(?: \w+){{0,3}}?[ \t]*+[:：]?[\s(]*+$", _FLAGS)
_NOUN = re.compile(rf"(?:{pattern(languages.ANSWER)}|{_OPTION_NOUN})", _FLAGS)
_ANSWER = re.compile(pattern(languages.ANSWER), _FLAGS)
_CORRECT = re.compile(pattern(languages.CORRECT), _FLAGS)
_FINAL = re.compile(
    rf"{pattern(languages.FINAL)}(?:[ \t]+{_OPTION_NOUN})?"
    r"|(?<!\w)my (?:final )?(?:choice|pick|selection|vote)(?!\w)",
    _FLAGS,
)
_FALSE_STATEMENT = re.compile(
    r"(?<!\w)(?:(?:false|incorrect|untrue|wrong) (?:statement|option|one|answer)|exception|"
    r"(?:proposition|réponse) (?:fausse|inexacte|incorrecte)|"
    r"(?:opción|afirmación|alternativa|afirmativa|opção) (?:falsa|incorrecta|incorreta|errada)|"
    r"falsche (?:aussage|antwort)|affermazione (?:falsa|errata)|неверн\w+ (?:утверждение|ответ))"
    r"(?!\w)|(?:错误|不正确|不符合)的(?:选项|说法)?(?=是|为)"
    r"|(?:誤っている|誤り|適切でない)(?:もの)?(?=は|の)",
    _FLAGS,
)
"""The question asks for the statement that does not hold."""
_OPTION_THAT = re.compile(rf"{_OPTION_NOUN}[ \t]+(?:that|which|qui|que|che|котор\w+)(?!\w)", _FLAGS)
_CHOOSE = re.compile(rf"{pattern(languages.CHOOSE)}(?!项|項)\s*[:：]?\s*", _FLAGS)
_IT_IS = re.compile(r"it|that|c'est|il s'agit", _FLAGS)
_THEREFORE = re.compile(
    rf"(?:{pattern(languages.THEREFORE)}|[∴⇒→]|[=-]>)[ \t]*[,:：]?[ \t]*", _FLAGS
)
_MAKES = re.compile(r"(?<!\w)(?:makes|making)[ \t]+", _FLAGS)
_MADE = re.compile(rf"[ \t]*(?:the )?(?:{pattern(languages.CORRECT)})", _FLAGS)
_REMAINS = re.compile(rf"{pattern(languages.REMAINS)}[ \t]*[:：]?[ \t]*", _FLAGS)
_REMAINED = re.compile(rf"[ \t]*,?[ \t]*{pattern(languages.REMAINED)}", _FLAGS)
_ONLY_ENDS = re.compile(r"[ \t]*(?:is|fits|can|makes)(?!\w)|[.!]|\s*$", _FLAGS)
_TO_DO = re.compile(
    r"(?:to[ \t]+)?(?:start|begin|initiat|giv|administer|perform|obtain|order|prescrib|us|request|"
    r"conduct|continu|get|plac|schedul|arrang|recommend|add|do|proceed)(?:e|ing)?[ \t]+"
    r"(?:with[ \t]+)?(?:an?[ \t]+|the[ \t]+)?",
    _FLAGS,
)
_BETTER = re.compile(
    rf"[ \t]*+(?:{_COPULA}[ \t]*+{_ADVERB}[ \t]*+)?(?:{pattern(languages.BETTER)})", _FLAGS
)
_NOT_BUT = re.compile(rf"[ \t]*+,?[ \t]*+(?:{pattern(languages.INSTEAD)})[ \t]*+", _FLAGS)
_CHOSEN_AFTER = re.compile(r"(?:を選[びぶん択]|[를을] ?(?:선택|고))")
_DEFINITE = r"(?:the|our|my|la|le|el|il|o|a|die|der|das|l')"
_PREDICATE = re.compile(
    rf"[ \t]*+(?:{_OPTION_NOUN})?[ \t]*+"
    rf"(?P<copula>{_COPULA}|[—–-](?=[ \t])|trifft|هو|هي)?{_ADVERB}[ \t]*+"
    rf"(?P<definite>{_DEFINITE}(?:[ \t]+|(?<=')))?(?P<before>{_NOUN.pattern}[ \t]+)?"
    rf"(?P<correct>(?:{_CORRECT.pattern}[ \t]*)+|zu(?!\w))?[ \t]*(?P<after>的|{_NOUN.pattern})?",
    _FLAGS,
)
_WEAK = re.compile(
    r"(?:appropriate|likely|suitable|accurate|reasonable|fitting|probable|plausible)\s*", _FLAGS
)
_SUPERLATIVE = re.compile(r"most|best|preferred|ideal|最|أنسب|أفضل|가장", _FLAGS)
_COPULA_BEFORE = re.compile(rf"{_COPULA}[ \t]*+[:：]?[ \t]*+[(\[\"'“]*+$", _FLAGS)
_STATEMENT_ENDS = re.compile(rf"\s*(?:$|[.!,\n]|[{SIGNS}])")
_WITHOUT_VERB = re.compile(r"[^\x00-\u036f\u0400-\u04ff]")
"""Scripts whose languages put the letter beside the noun without a verb."""


def declarations(text: str, choices: ChoiceReader) -> list[Declaration]:
    """Return the declarations of a text without those that the model took back."""
    found = [
        *_after_noun(text, choices),
        *_after_marker(text, choices),
        *_after_inference(text, choices),
        *_at_mention(text, choices),
    ]
    retracted = [
        position
        for position in qualifiers.retractions(text)
        if any(one.position <= position and one.certainty > Certainty.VERDICT for one in found)
    ]
    last = max(retracted, default=0)
    return [one for one in found if one.position > last]


def _after_noun(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield "the answer … is C", "the most likely cause is C", "the exception is C"."""
    for noun, with_letter, with_text in (
        (_ANSWER, Certainty.DECLARED, Certainty.DECLARED),
        (_FINAL, Certainty.DECLARED, Certainty.DECLARED),
        (_CORRECT, Certainty.CHOSEN, Certainty.CONCLUSION),
        (_OPTION_THAT, Certainty.CHOSEN, Certainty.CONCLUSION),
        (_FALSE_STATEMENT, Certainty.CHOSEN, Certainty.CONCLUSION),
    ):
        for match in noun.finditer(text):
            is_false = noun is _FALSE_STATEMENT
            if not is_false and qualifiers.is_of_others(text, match.start()):
                continue
            linked = _linked(text, match, choices)
            if linked is None:
                continue
            choice, is_beside = linked
            if not is_beside and qualifiers.is_complement(text, match.start()):
                continue
            if is_false and len(choice.letters) > 1:
                continue
            if not qualifiers.holds(text, choice, match.start()):
                continue
            certainty = with_text if choice.by_text else with_letter
            if noun is _CORRECT and not choice.by_text and _names_option(text, match):
                certainty = Certainty.DECLARED
            if is_beside:
                certainty = min(certainty, _certainty_beside(text, match, choice))
            yield Declaration(certainty, choice.end, choice.letters)


def _names_option(text: str, match: re.Match[str]) -> bool:
    """Return whether "correct" belongs to "option" or its like: "the correct option is C"."""
    start = max(match.start() - 15, 0)
    return _NOUN.search(text, start, match.end() + 30) is not None


def _linked(text: str, noun: re.Match[str], choices: ChoiceReader) -> tuple[Choice, bool] | None:
    """Return the choice that a verb or colon links to a noun, and whether it is just beside it."""
    line = _NEWLINE.match(text, noun.end())
    if line and noun.re in (_ANSWER, _FINAL):
        choice = choices.at(text, line.end()) if _is_heading(text, noun) else None
        return (choice, False) if choice else None
    beside = None if line else choices.at(text, noun.end())
    if beside:
        return None if _is_listed(text, noun.end(), beside, choices) else (beside, True)
    end = qualifiers.sentence_end(text, noun.end(), _WINDOW)
    again = noun.re.search(text, noun.end(), end)
    end = again.start() if again else end
    for link in _LINK.finditer(text, noun.end(), end):
        if qualifiers.NEGATION.search(text, noun.end(), link.start()):
            return None
        if noun.re is _CORRECT:
            if qualifiers.CALLED_WRONG.search(text, noun.end(), link.start()):
                return None  # "why each is correct or incorrect:"
            if "\n" in link[0] and not _names_option(text, noun):
                return None  # a heading of a list
        choice = choices.at(text, link.end()) or _measure(text, link.end(), choices)
        if choice and not _repeats_options(text, choice, choices):
            return choice, False
    return None


def _measure(text: str, position: int, choices: ChoiceReader) -> Choice | None:
    """Return the choice after a verb, if its text is given: "to obtain a chest x-ray (B)"."""
    verb = _TO_DO.match(text, position)
    choice = choices.at(text, verb.end()) if verb else None
    return choice if choice and (choice.by_text or choice.with_text) else None


def _repeats_options(text: str, choice: Choice, choices: ChoiceReader) -> bool:
    """Return whether a choice begins a list that is announced: "The options are: A) … B) …"."""
    begin = max(choice.start - 60, 0)
    if _OPTIONS_HEADING.search(text, begin, choice.start):
        return True
    announced = _OPTIONS_ARE.search(text, begin, choice.start)
    return bool(announced) and _is_listed(text, choice.end, choice, choices)


def _is_listed(text: str, position: int, choice: Choice, choices: ChoiceReader) -> bool:
    """Return whether a choice after a noun begins a list: "answer choices: (A) … (B) …".

    On a line of its own it does so unless nothing else is on this line.
    """
    following = _BETWEEN.match(text, choice.end)
    end = following.end() if following else choice.end
    other = choices.at(text, end)
    if other and other.start == end and (other.with_text or other.delimited):
        return other.letters != choice.letters
    is_on_next_line = "\n" in text[position : choice.end].rstrip()
    return is_on_next_line and end < len(text) and "\n" not in text[choice.end : end]


def _is_heading(text: str, noun: re.Match[str]) -> bool:
    """Return whether a noun at the end of a line has no sentence before it."""
    begin = text.rfind("\n", 0, noun.start()) + 1
    is_short = noun.start() - begin <= _HEADING
    return is_short and not re.compile(_COPULA, _FLAGS).search(text, begin, noun.start())


def _certainty_beside(text: str, noun: re.Match[str], choice: Choice) -> Certainty:
    """Return the certainty of "answer C" without a verb, which may just name the option C."""
    if text[noun.end() : choice.end].strip().startswith(":") or _WITHOUT_VERB.search(noun[0]):
        return Certainty.DECLARED
    if noun.re is _ANSWER and _STATEMENT_ENDS.match(text, choice.end):
        return Certainty.CHOSEN
    return Certainty.VERDICT


def _after_marker(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield "I choose C" and "it is C"."""
    for match in _CHOOSE.finditer(text):
        choice = choices.at(text, match.end())
        if choice is None or not qualifiers.holds(text, choice, match.start()):
            continue
        if qualifiers.is_negated(text, match.start()):
            continue
        certainty = Certainty.DECLARED
        if _IT_IS.match(match[0]):
            certainty = Certainty.CONCLUSION if choice.by_text else Certainty.CHOSEN
        yield Declaration(certainty, choice.end, choice.letters)


def _after_inference(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield "so C" and "leaving C"."""
    for match in _THEREFORE.finditer(text):
        choice = choices.at(text, match.end())
        if choice is None or not _STATEMENT_ENDS.match(text, choice.end):
            continue
        if qualifiers.holds(text, choice, match.end()):
            certainty = Certainty.CONCLUSION if choice.by_text else Certainty.CHOSEN
            yield Declaration(certainty, choice.end, choice.letters)
    for match in _MAKES.finditer(text):
        choice = choices.at(text, match.end())
        if choice and _MADE.match(text, choice.end):
            yield Declaration(Certainty.CHOSEN, choice.end, choice.letters)
    for match in _REMAINS.finditer(text):
        choice = choices.at(text, match.end())
        if choice is None or not qualifiers.holds(text, choice, match.end()):
            continue
        if _is_left(text, match[0], choice) and not qualifiers.is_negated(text, match.start()):
            yield Declaration(Certainty.CHOSEN, choice.end, choice.letters)


def _is_left(text: str, marker: str, choice: Choice) -> bool:
    """Return whether the elimination left one option: "leaving B and C" goes on."""
    if len(choice.letters) > 1:
        return False
    if marker.strip().lower() != "only":
        return True
    return bool(_REMAINED.match(text, choice.end) or _ONLY_ENDS.match(text, choice.end))


def _at_mention(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield "C is correct", "C is the best answer", "only C remains", "not A but C", "is (C) …"."""
    position = 0
    while mention := choices.patterns.mention.search(text, position):
        position = mention.end()
        choice = choices.at(text, mention.start())
        if choice is None:
            continue
        position = choice.end
        negated = qualifiers.is_option_negated(text, mention.start())
        instead = _NOT_BUT.match(text, choice.end)
        if instead and (negated or instead[0].strip() > "\u3000"):
            chosen = choices.at(text, instead.end())
            if chosen and qualifiers.holds(text, chosen, instead.end()):
                yield Declaration(Certainty.CHOSEN, chosen.end, chosen.letters)
                position = chosen.end
            continue
        if negated:
            continue
        certainty = _predicate(text, choice) or _complement(text, mention.start(), choice)
        if certainty and _repeats_options(text, choice, choices):
            continue
        if certainty and qualifiers.holds(text, choice, mention.start(), hedges=False):
            yield Declaration(certainty, choice.end, choice.letters)


def _complement(text: str, start: int, choice: Choice) -> Certainty | None:
    """Return the certainty of "… is C. " and the option's own text."""
    if choice.with_text and _COPULA_BEFORE.search(text, max(start - 20, 0), start):
        return Certainty.CHOSEN
    return None


def verdict_certainty(word: str) -> Certainty:
    """Return the certainty of a verdict by its word: "correct" or just "likely"."""
    return Certainty.PLAUSIBLE if _WEAK.fullmatch(word.strip()) else Certainty.VERDICT


def _predicate(text: str, choice: Choice) -> Certainty | None:
    """Return the certainty of what is said of a choice, if it is said to be the answer."""
    if not choice.by_text and len(choice.letters) == 1 and _REMAINED.match(text, choice.end):
        return Certainty.CHOSEN
    if _CHOSEN_AFTER.match(text, choice.end):
        return Certainty.CHOSEN
    if len(choice.letters) == 1 and _BETTER.match(text, choice.end):
        return Certainty.CONCLUSION
    match = _PREDICATE.match(text, choice.end)
    if match is None or qualifiers.is_negated_after(text, match.end()):
        return None
    noun = match["before"] or match["after"]
    correct = match["correct"]
    if correct is None:
        is_answer = noun and match["copula"] and match["definite"] and _ANSWER.match(noun.strip())
        if not is_answer:
            return None
    elif match["copula"] is None and correct.isascii():
        return None
    if correct and _SUPERLATIVE.search(correct):
        return Certainty.CONCLUSION if choice.by_text else Certainty.CHOSEN
    if noun and noun != "的":
        return Certainty.CONCLUSION if choice.by_text else Certainty.DECLARED
    return verdict_certainty(correct or "")
