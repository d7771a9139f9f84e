"""Answers without a declaration: a line that is an option, and the concluding sentence."""

import re
from collections.abc import Iterator

from evaluation.scoring.answer_extraction import languages, qualifiers
from evaluation.scoring.answer_extraction.choices import Choice, ChoiceReader
from evaluation.scoring.answer_extraction.declarations import Certainty, Declaration
from evaluation.scoring.answer_extraction.languages import pattern
from evaluation.scoring.answer_extraction.option_texts import SIGNS
from evaluation.scoring.answer_extraction.structured import value_letters

_FLAGS = re.IGNORECASE
_BULLET = re.compile(r"[\s•\-–—➡→=>▪●*]*+")
_LONGEST_LINE = 400
_TRAILING_LINES = 7
"""Lines after the answer at most: a disclaimer, an offer to explain."""
_LEAD = re.compile(rf"[\s\W]*(?:{pattern(languages.THEREFORE, languages.FINAL)})[\s:,—–-]*", _FLAGS)
_ANSWER_PREFIX = re.compile(r"A\s*:\s*(.+)")
_CUE = re.compile(pattern(languages.CONCLUSION), _FLAGS)
_AGAINST = re.compile(
    rf"{pattern(languages.NOT, languages.WRONG, languages.CONDITION)}|[❌✗✘❎]", _FLAGS
)
_WRONG = re.compile(pattern(languages.WRONG), _FLAGS)
_REASON = re.compile(r"[\s.)]*(?:,|because|since)", _FLAGS)
_VERDICT = re.compile(rf"[✅✓✔☑]|{pattern(languages.CORRECT)}", _FLAGS)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？؟।])|\n+")
_COMPLETE = re.compile(rf"[.!。！؟।)\]:{SIGNS}\"”]\s*$")
_LABELLED = re.compile(r"[\s\W]*[^\W\d_][).:、]")
_NEXT_LABEL = re.compile(r"(?:\n\s*|[.;。]\s+)[-•(\s]*(?=[^\W\d_][).:、])")
_OPTION_NOUN = re.compile(rf"{pattern(languages.OPTION)}[ \t]*$", _FLAGS)
_SHORT = 160
"""A text up to this many characters names its answer in any sentence."""
_LAST_SENTENCES = 2
"""Sentences at the end that may conclude."""


def lines(text: str, choices: ChoiceReader) -> list[Declaration]:
    """Return what the first and the last line declare, and the verdicts of a list."""
    all_lines = [line for line in text.split("\n") if line.strip()]
    values = [_line_letters(line, choices) for line in all_lines]
    if all(values):
        return list(_only_options(values, choices))
    return [
        *_first_line(text, values, choices),
        *_last_line(values),
        *_verdicts(all_lines, choices),
    ]


def _line_letters(line: str, choices: ChoiceReader) -> str:
    """Return the letters of a line that is nothing but options."""
    if len(line) > _LONGEST_LINE:
        return ""
    content = _BULLET.sub("", line, count=1)
    prefixed = _ANSWER_PREFIX.fullmatch(content)
    if prefixed and (letters := value_letters(prefixed[1], choices)):
        return letters
    return value_letters(_LEAD.sub("", content, count=1), choices) if content else ""


def _only_options(values: list[str], choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the options of a text that has nothing else, unless it repeats the question's."""
    letters = set("".join(values))
    repeats_all = len(letters) == len(choices.options) and len(values) > 1
    is_contradiction = choices.is_yes_no and len(letters) > 1
    if values and not repeats_all and not is_contradiction:
        yield Declaration(Certainty.DECLARED, 0, "".join(values))


def _first_line(text: str, values: list[str], choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the option at the very beginning, unless it begins a list of options."""
    begin = _BULLET.match(text)
    start = begin.end() if begin else 0
    first = choices.at(text, start)
    if first is None or first.hedged or first.start > start + 1 or first.by_text:
        return
    if any(position >= first.end for position in qualifiers.retractions(text)):
        return
    if values[0]:
        if not values[1]:
            yield Declaration(Certainty.DECLARED, 0, first.letters)
        return
    following = _next_label(text, first, choices)
    if following and following == _successor(first.letters, choices):
        return
    if _explains(text, first):
        yield Declaration(Certainty.CHOSEN, 0, first.letters)


def _explains(text: str, first: Choice) -> bool:
    """Return whether the text goes on after its option as an explanation of the choice."""
    sentence = _SENTENCE.split(text[first.end : first.end + 300], maxsplit=1)[0]
    if first.with_text:
        # "E. Steroid use is not a risk factor" is the answer to what is none
        return not _WRONG.search(re.sub(r"(?i)\bnot\b", " ", sentence))
    if _REASON.match(sentence):
        return True
    return not _WRONG.search(sentence) and not qualifiers.is_denied(text, first.end)


def _next_label(text: str, first: Choice, choices: ChoiceReader) -> str:
    """Return the first letter after the beginning that labels a line or sentence."""
    for match in _NEXT_LABEL.finditer(text, first.end):
        choice = choices.at(text, match.end())
        if choice:
            return choice.letters
    return ""


def _successor(letters: str, choices: ChoiceReader) -> str:
    order = list(choices.options)
    position = order.index(letters[-1]) + 1
    return order[position] if position < len(order) else ""


def _last_line(values: list[str]) -> Iterator[Declaration]:
    """Yield the last line that is an option, unless it ends a list of options."""
    for i in range(len(values) - 1, max(len(values) - 1 - _TRAILING_LINES, 0), -1):
        if values[i]:
            if not values[i - 1]:
                yield Declaration(Certainty.CHOSEN, 0, values[i])
            return


def _verdicts(all_lines: list[str], choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the options of a list that are marked or called correct."""
    for line in all_lines:
        begin = _BULLET.match(line)
        choice = choices.at(line, begin.end() if begin else 0)
        if choice is None or len(choice.letters) > 1:
            continue
        if _VERDICT.search(line, choice.end) and not _AGAINST.search(line, choice.end):
            yield Declaration(Certainty.VERDICT, 0, choice.letters)


def conclusion(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the only option of the concluding sentence, by its letter or by its text."""
    if choices.is_yes_no:
        return
    sentences = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]
    is_short = len(text) <= _SHORT and bool(_only_option(text, choices))
    for sentence in sentences if is_short else sentences[: -_LAST_SENTENCES - 1 : -1]:
        if _AGAINST.search(sentence):
            continue
        if not is_short:
            is_discussion = _LABELLED.match(sentence)
            if is_discussion or not _COMPLETE.search(sentence) or not _CUE.search(sentence):
                continue
        letters = _only_option(sentence, choices)
        if letters:
            yield Declaration(Certainty.CONCLUSION, 0, letters)
            return


def _only_option(sentence: str, choices: ChoiceReader) -> str:
    """Return the one option that a sentence names; a letter only in brackets or after a noun."""
    labels: set[str] = set()
    texts: set[str] = set()
    position = 0
    while mention := choices.patterns.mention.search(sentence, position):
        start = max(mention.start() - 1, position)
        choice = choices.at(sentence, start) or choices.at(sentence, mention.start())
        position = mention.end()
        if choice is None:
            continue
        position = max(choice.end, position)
        if choice.by_text:
            texts.update(filter(choices.texts.is_distinctive, choice.letters))
        elif choice.delimited or _is_after_option_noun(sentence, mention.start()):
            labels.update(choice.letters)
    found = labels or texts
    return found.pop() if len(found) == 1 else ""


def _is_after_option_noun(sentence: str, position: int) -> bool:
    return _OPTION_NOUN.search(sentence, max(position - 15, 0), position) is not None
