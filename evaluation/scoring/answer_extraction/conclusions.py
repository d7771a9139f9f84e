"""Answers without a declaration: a line that is an option, and the concluding sentence."""

import re
from collections.abc import Iterator

from evaluation.scoring.answer_extraction import (
    languages,
    qualifiers,
    reservations,
    verdicts,
)
from evaluation.scoring.answer_extraction.choices import Choice, ChoiceReader
from evaluation.scoring.answer_extraction.declarations import (
    Certainty,
    Declaration,
    verdict_certainty,
)
from evaluation.scoring.answer_extraction.languages import pattern
from evaluation.scoring.answer_extraction.option_texts import SIGNS
from evaluation.scoring.answer_extraction.structured import value_letters

_FLAGS = re.IGNORECASE
_BULLET = re.compile(r"[\s•\-–—➡→=>▪●*]*+")
_OPTIONS_HEADING = re.compile(
    rf"(?:options|choices|{pattern(languages.OPTION)})(?: \w+){{0,3}}\s*[:：]\W*$", _FLAGS
)
_LONGEST_LINE = 400
_TRAILING_LINES = 7
"""Lines after the answer at most: a disclaimer, an offer to explain."""
_LEAD = re.compile(rf"[\s\W]*(?:{pattern(languages.THEREFORE, languages.FINAL)})[\s:,—–-]*", _FLAGS)
_ANSWER_PREFIX = re.compile(r"A\s*:\s*(.+)")
_CUE = re.compile(pattern(languages.CONCLUSION), _FLAGS)
_AGAINST = re.compile(rf"{pattern(languages.NOT, languages.WRONG)}|[❌✗✘❎]", _FLAGS)
_BUT_NOT = re.compile(
    r"(?<!\w)(?:but|although|though|however),? (?:it|this|that) (?:is|was|does)(?: not|n't)", _FLAGS
)
_REFUSAL = re.compile(pattern(reservations.REFUSAL), _FLAGS)
_CONDITION = re.compile(pattern(reservations.CONDITION), _FLAGS)
_IS_OPTION = re.compile(
    rf"{pattern(languages.COPULA)}[ \t]*(?:an? |the |la |le |el |o |a )?[{SIGNS}][ \t]*[.。(]",
    _FLAGS,
)
_CLAUSE = re.compile(r"[,;:、]")
_WRONG = re.compile(pattern(languages.WRONG), _FLAGS)
_REASON = re.compile(r"[\s.)]*(?:,|because|since)", _FLAGS)
_RATIONALE = re.compile(
    r"\A(?P<statement>[^\n]{1,400}?(?:\n|[.] ))\s*"
    r"(?:rationale|explanation|explication|explicación|explicação|reason|justifi|"
    r"begründung|erklärung|spiegazione|motivazione|обоснование|объяснение|пояснение|解析|解释|理由|"
    r"解説|해설|설명|التفسير|الشرح)[^\n:]{0,20}:",
    _FLAGS,
)
"""An explanation right after a statement makes this the answer, not the first of a list."""
_VERDICT = re.compile(rf"[✅✓✔☑]|{pattern(languages.CORRECT)}", _FLAGS)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？؟।])|\n+")
_LAST_SENTENCE = re.compile(
    r"[^\s.!?]{2}[.!?…]+ (?P<option>[(\[\"']?[^\W\d_][)\]\"']?)(?:, then)?[.!]?\Z"
)
_LAST_COMPLEMENT = re.compile(
    rf"{pattern(languages.COPULA)}[ \t]*:?[ \t]*(?P<option>[(\[\"']?[^\W\d_][)\]\"']?)[.!。]\Z",
    _FLAGS,
)
_COMPLETE = re.compile(rf"[.!。！؟।)\]:{SIGNS}\"”]\s*$")
_LABELLED = re.compile(r"[\s\W]*[^\W\d_][).:、]")
_NEXT_LABEL = re.compile(r"(?:\n\s*|[.;。]\s+)[-•(\s]*(?=[^\W\d_][).:、])")
_OPTION_NOUN = re.compile(rf"{pattern(languages.OPTION)}[ \t]*$", _FLAGS)
_FEW_WORDS = 3
_SHORT = 160
"""A text up to this many characters names its answer in any sentence."""
_MEDIUM = 500
_LAST_SENTENCES = 2
"""Sentences at the end that may conclude."""


def lines(text: str, choices: ChoiceReader) -> list[Declaration]:
    """Return what the first and the last line declare, and the verdicts of a list."""
    all_lines = [line for line in text.split("\n") if line.strip()]
    values = [_line_letters(line, choices) for line in all_lines]
    if all(values):
        return list(_only_options(values, choices))
    found = verdicts.verdicts(text, choices)
    return [
        *_first_line(text, values, choices),
        *(one for one in _beginning(text, choices) if found.get(one.letters, True)),
        *_before_rationale(text, choices),
        *_last_line(all_lines, values, choices),
        *_last_sentence(text, choices),
        *_verdicts(all_lines, choices),
        *verdicts.only_right(found),
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
    every = list(choices.options)
    if values[1:] == every or values[:-1] == every:
        values = values[:1] if values[1:] == every else values[-1:]
    letters = set("".join(values))
    repeats_all = len(letters) == len(choices.options) and len(values) > 1
    is_contradiction = choices.is_yes_no and len(letters) > 1
    if values and not repeats_all and not is_contradiction:
        yield Declaration(Certainty.DECLARED, 0, "".join(values))


def _first_line(text: str, values: list[str], choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the first line that is an option, unless it begins a list of options."""
    if not values[0] or qualifiers.retractions(text):
        return
    repeats_options = values[1 : 1 + len(choices.options)] == list(choices.options)
    is_listed = values[1] or _is_listed(values[0], values, choices)
    if _RATIONALE.match(text) or repeats_options or not is_listed:
        yield Declaration(Certainty.DECLARED, 0, values[0])


def _beginning(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the letter at the very beginning, unless it begins a list of options."""
    begin = _BULLET.match(text)
    start = begin.end() if begin else 0
    first = choices.at(text, start)
    if first is None or first.hedged or first.by_text or first.start > start + 1:
        return
    if text[start] in choices.texts.signs:
        return  # the text, then its letter: a heading of an analysis
    following = _next_label(text, first, choices)
    is_listed = following and following == _successor(first.letters, choices)
    if is_listed or any(position >= first.end for position in qualifiers.retractions(text)):
        return
    if _explains(text, first):
        yield Declaration(Certainty.CHOSEN, 0, first.letters)


def _before_rationale(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the only option of what comes before "Rationale:" at the beginning of the answer."""
    match = _RATIONALE.match(text)
    if match is None or choices.is_yes_no:
        return
    statement = match["statement"]
    letters = _only_option(statement, choices)
    if letters and not _AGAINST.search(_clause(statement, choices)):
        yield Declaration(Certainty.CHOSEN, 0, letters)


def _is_listed(letters: str, values: list[str], choices: ChoiceReader) -> bool:
    """Return whether the next option has a line, too."""
    successor = _successor(letters, choices)
    return successor != "" and successor in values


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
    position = order.index(letters[-1]) + 1 if letters else len(order)
    return order[position] if position < len(order) else ""


def _last_line(
    all_lines: list[str], values: list[str], choices: ChoiceReader
) -> Iterator[Declaration]:
    """Yield the last line that is an option, unless it ends a list of options."""
    for i in range(len(values) - 1, max(len(values) - 1 - _TRAILING_LINES, 0), -1):
        if values[i]:
            before = [value for value in values[:i] if value]
            order = list(choices.options)
            goes_on = before and order.index(before[-1][-1]) < order.index(values[i][0])
            is_under_heading = bool(_OPTIONS_HEADING.search(all_lines[i - 1]))
            begins_list = values[i] == order[0] and is_under_heading
            begins_list = begins_list or _are_bullets(all_lines[i - 1 : i + 1], choices)
            is_next = values[i] == _successor(_labels(all_lines[i - 1], choices), choices)
            if not (values[i - 1] or goes_on or begins_list or is_next):
                yield Declaration(Certainty.CHOSEN, 0, values[i])
            return


def _are_bullets(pair: list[str], choices: ChoiceReader) -> bool:
    """Return whether two lines are items of a list, the first about another option."""
    bullets = [match[0] if (match := _BULLET.match(line)) else "" for line in pair]
    if not all(bullets) or bullets[0] != bullets[1]:
        return False
    return choices.at(pair[0], len(bullets[0])) is not None


def _labels(line: str, choices: ChoiceReader) -> str:
    """Return the letters that label a line, as in the analysis of each option."""
    choice = choices.at(_BULLET.sub("", line, count=1), 0)
    return choice.letters if choice and not choice.by_text and not choice.start else ""


def _last_sentence(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the option that is the last sentence: "… rules out B. C, then."."""
    match = _LAST_SENTENCE.search(text) or _LAST_COMPLEMENT.search(text)
    choice = choices.at(text, match.start("option")) if match else None
    if match is None or choice is None or len(choice.letters) > 1 or choice.by_text:
        return
    if match[0][-1] in "AI":
        return  # the first word of a sentence that is cut off
    start = match.start("option")
    if qualifiers.holds(text, choice, start) and not qualifiers.is_option_negated(text, start):
        yield Declaration(Certainty.CHOSEN, 0, choice.letters)


def _verdicts(all_lines: list[str], choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the options of a list that are marked or called correct."""
    for line in all_lines:
        begin = _BULLET.match(line)
        choice = choices.at(line, begin.end() if begin else 0)
        if choice is None or choice.hedged or len(choice.letters) > 1:
            continue
        marks = [mark[0] for mark in _VERDICT.finditer(line, choice.end)]
        if marks and not _AGAINST.search(line, choice.end):
            yield Declaration(max(map(verdict_certainty, marks)), 0, choice.letters)


def is_cut_off(text: str) -> bool:
    """Return whether an answer ends within a sentence of several words."""
    last = text.rstrip().rsplit("\n", 1)[-1]
    return len(last.split()) > _FEW_WORDS and not _COMPLETE.search(last)


def is_left_open(text: str, choices: ChoiceReader) -> bool:
    """Return whether an answer ends with a refusal or with alternatives."""
    sentences = [
        sentence for sentence in _SENTENCE.split(text[-_LONGEST_LINE:]) if sentence.strip()
    ]
    for sentence in sentences[: -_LAST_SENTENCES - 1 : -1]:
        if _REFUSAL.search(sentence):
            return True
        if any(
            choices.at(sentence, mention.start())
            for mention in choices.patterns.mention.finditer(sentence)
        ):
            return False
    return False


def conclusion(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the only option of the concluding sentence, by its letter or by its text."""
    if choices.is_yes_no:
        yield from _yes_no_line(text, choices)
        return
    sentences = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]
    is_short = _names_one(text, choices)
    for sentence in sentences if is_short else sentences[: -_LAST_SENTENCES - 1 : -1]:
        is_whole = _COMPLETE.search(sentence) or len(sentences) == 1
        if not is_whole or _CONDITION.search(sentence):
            continue
        is_concluding = _CUE.search(sentence) or _IS_OPTION.search(sentence)
        is_discussion = _LABELLED.match(sentence) or _begins_with_option(sentence, choices)
        if not is_short and (is_discussion or not is_concluding):
            continue
        letters = _only_option(sentence, choices)
        is_denied = _AGAINST.search(_clause(sentence, choices)) or _BUT_NOT.search(sentence)
        if letters and not is_denied:
            yield Declaration(Certainty.CONCLUSION, 0, letters)
            return


def _names_one(text: str, choices: ChoiceReader) -> bool:
    """Return whether a short text names one option, or a longer one no other, with its letter."""
    if len(text) > _MEDIUM or not (letter := _only_option(text, choices)):
        return False
    if len(text) <= _SHORT:
        return True
    mentioned = {
        choice.letters
        for mention in choices.patterns.mention.finditer(text)
        if (choice := choices.at(text, mention.start()))
    }
    return mentioned == {letter} and bool(re.search(rf"\({letter}\)|(?<!\w){letter}[.:]", text))


def _yes_no_line(text: str, choices: ChoiceReader) -> Iterator[Declaration]:
    """Yield the yes or no at the beginning of the last line."""
    begin = text.rfind("\n") + 1
    choice = choices.at(text, begin)
    if begin and choice and not choice.hedged and len(choice.letters) == 1:
        yield Declaration(Certainty.CONCLUSION, 0, choice.letters)


def _begins_with_option(sentence: str, choices: ChoiceReader) -> bool:
    choice = choices.at(sentence, 0)
    return choice is not None and choice.start == 0


def _clause(sentence: str, choices: ChoiceReader) -> str:
    """Return the clause of a sentence that names an option."""
    for clause in _CLAUSE.split(sentence):
        if _only_option(clause, choices):
            return clause
    return sentence


def _only_option(sentence: str, choices: ChoiceReader) -> str:
    """Return the one option that a sentence names; a letter only in brackets or after a noun."""
    labels: set[str] = set()
    texts: set[str] = set()
    position = 0
    while mention := choices.patterns.mention.search(sentence, position):
        start = max(mention.start() - 1, position)
        is_after_noun = _OPTION_NOUN.search(sentence, max(start - 15, 0), mention.start())
        choice = choices.at(sentence, start) or choices.at(sentence, mention.start())
        position = mention.end()
        if is_after_noun and mention[0] in choices.options:
            labels.add(mention[0])
        if choice is None:
            continue
        position = max(choice.end, position)
        if choice.by_text:
            texts.update(filter(choices.texts.is_distinctive, choice.letters))
        elif choice.delimited or choice.with_text or is_after_noun:
            labels.update(choice.letters)
    found = labels or texts
    return found.pop() if len(found) == 1 else ""
