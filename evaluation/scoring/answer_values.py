r"""Values in generated answers: numbers, dates and gestational ages.

The rules are strict: what may mean two values is no value.

- A cue (`answer: …`, `the answer is …`, `"answer": …`, `\boxed{…}`) marks the answer; the last cue
  counts. Only the rest of its line is read, or the next line where the cue ends its own.
- The value is the number after the last `=` of the line; without one the first number after a cue,
  or, without a cue, the last number of the last line that has one.
- Commas and narrow spaces separate thousands, a point the decimals: `1,234.5`. `1.234,5` and `12,5`
  are no numbers.
- `3/4` is a quotient, `3 out of 9` is 3, `53 %` is 53. Units are ignored, with the digits in them
  (`mL/min/1.73 m²`, `10^9/L`).
- Ranges (`12-15`, `12 ± 3`), bounds (`< 5`, `at least 5`), alternatives and terms are no numbers.
- Of an answer that the token limit ended only a cue's value is read, and not its last word.
- Dates are MM/DD/YYYY, gestational ages `17 weeks, 4 days` or `(17, 4)`.
"""

import datetime
import itertools
import math
import re
from dataclasses import dataclass

Value = float | datetime.date | tuple[int, int]
"""A number, a date, or a gestational age in weeks and days."""

_CUE = re.compile(
    r"\\boxed\s*\{"
    r"""|\banswers?\b["'*_`\s]{0,9}(?:\([^()\n]{0,60}\))?["'*_`\s]{0,9}[:=]"""
    r"|\banswers?\b[^\n.:=\d]{0,60}?\b(?:is|are)\b\s*:?",
    re.IGNORECASE,
)
_DIGITS = r"\.?\d[\d.,\u2009\u202f\u00a0]*"
_NUMBER = re.compile(
    rf"(?<![\w.,^/])(?<![A-Za-z]{{3}}-)(?P<sign>[+-]?)(?P<digits>{_DIGITS})(?:[eE](?P<exponent>[+-]?\d{{1,3}})(?!\w))?"
    r"(?:\s*[×x]\s*10\s*\^\s*(?P<power>[+-]?\d{1,3}))?"
    rf"(?:\s?/\s?(?P<divisor>{_DIGITS})(?![\w/]))?"
)
_PLAIN = re.compile(r"(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?|\.\d+", re.ASCII)
_SPACES = "\u2009\u202f\u00a0"
_UNIT = re.compile(
    r"(?:/|\bper\b)\s*1\.73\s*m\^?2|(?:[×x]\s*)?(?<![\w.,])10\s*\^\s*\d{1,2}\s*(?=/)", re.IGNORECASE
)
"""Digits that belong to a unit."""
_JOINT = re.compile(
    r"\s*|[^=;:()\n]{0,20}?(?:[-+×x·÷/±]|\.\.\.?|…|\b(?:to|or|and)\b)\s*", re.IGNORECASE
)
"""Between two numbers: a range, alternatives, or terms of a calculation."""
_OUT_OF = re.compile(r"\s*(?:points?)?\s*\(?\s*out of(?: a total of)?\s*", re.IGNORECASE)
_BOUND = re.compile(
    r"(?:[<>≤≥]=?|\b(?:(?:less|more|greater|lower|higher|fewer) than|at (?:least|most)|under|over"
    r"|below|above|up to|between))\s*$",
    re.IGNORECASE,
)
_LONGEST_BOUND = 24
"""Characters of a bound with its white space."""
_DATE = re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(\d{4})(?![\d/])", re.ASCII)
_AGE = re.compile(
    r"(?<![\d.,])(\d{1,4})\s*weeks?[\"']?\s*,?\s*(?:and\s*)?[\"']?(\d{1,2})\s*days?"
    r"|\(\s*(\d{1,4})\s*,\s*(\d{1,2})\s*\)",
    re.IGNORECASE | re.ASCII,
)
_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-"}
    | {"→": "=", "⇒": "="}
    | dict.fromkeys("*$`~≈", "")
)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_OF_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


@dataclass(frozen=True, slots=True)
class _Number:
    start: int
    end: int
    value: float | None
    """None where the digits are no number."""


def parse(text: str) -> Value | None:
    """Return the value that a reference is; None where it is anything else, or has a unit."""
    text = text.strip()
    if _DATE.fullmatch(text):
        return _last_date(text)
    if _AGE.fullmatch(text.strip("()[]'\" ")) or _AGE.fullmatch(text):
        return _last_age(text)
    line = _plain(text)
    numbers = _numbers(line)
    if len(numbers) == 1 and (numbers[0].start, numbers[0].end) == (0, len(line)):
        return numbers[0].value
    return None


def extract(answer: str, like: Value, is_finished: bool = True) -> Value | None:
    """Return the value of the same type as `like` in a generated answer; None where none is clear.

    Args:
        answer: without the thinking.
        like: a reference.
        is_finished: False for an answer that the token limit ended: its last word may be cut off,
            and without a cue its last number is one of a calculation.
    """
    if not is_finished and answer.split():
        last_word = answer.split()[-1]
        answer = answer.removesuffix(last_word)
    cues = list(_CUE.finditer(answer))
    if not cues and not is_finished:
        return None
    text = _announced(answer, cues[-1]) if cues else answer
    if isinstance(like, tuple):
        return _last_age(text)
    if isinstance(like, datetime.date):
        return _last_date(text)
    for line in reversed([_plain(line) for line in text.splitlines()]):
        numbers = _numbers(line)
        if numbers:
            return _clear(line, numbers, 0 if cues else len(numbers) - 1)
    return None


def _announced(answer: str, cue: re.Match[str]) -> str:
    """Return what a cue announces: the rest of its line, or the next one that is not blank."""
    rest = answer[cue.end() :]
    if cue[0].endswith("{"):
        return _braced(rest)
    line, _, following = rest.partition("\n")
    if line.strip(" \t\"'*_`:)}]$\\[") or not following.strip():
        return line
    return following.strip().splitlines()[0]


def _braced(text: str) -> str:
    """Return a text up to the brace that closes it, on one line."""
    depth = 1
    for index, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return " ".join(text[:index].split())
    return text.split("\n")[0]


def _last_date(text: str) -> datetime.date | None:
    """Return the last date of a text; None where it is in no calendar."""
    matches = list(_DATE.finditer(text))
    if not matches:
        return None
    month, day, year = (int(group) for group in matches[-1].groups())
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


def _last_age(text: str) -> tuple[int, int] | None:
    """Return the last gestational age of a text, in weeks and days."""
    matches = list(_AGE.finditer(text))
    if not matches:
        return None
    weeks, days = (int(group) for group in matches[-1].groups() if group is not None)
    return weeks, days


def _plain(line: str) -> str:
    """Return a line without markup and without the digits of units."""
    line = line.translate(_CHARACTERS).replace("->", "=").replace("=>", "=")
    line = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", line)
    line = re.sub(r"\\(?:times|cdot)\b", "×", line)
    line = re.sub(r"\\(?:text|mathrm|mathbf|approx|[,;! %])", " ", line)
    line = re.sub(r"\^\s*\{([^{}]*)\}", r"^\1", line)
    line = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_OF_SUPERSCRIPTS), line)
    return _UNIT.sub("", line).strip()


def _numbers(line: str) -> list[_Number]:
    found: list[_Number] = []
    for match in _NUMBER.finditer(line):
        end = match.end() - len(match[0]) + len(match[0].rstrip(f".,{_SPACES}"))
        found.append(_Number(match.start(), end, _value(match, line[end:])))
    return found


def _value(match: re.Match[str], following: str) -> float | None:
    """Return the number that a match is; None where it is none, or too large."""
    digits = _ungrouped(match["digits"])
    if digits is None or re.match(r"\s?/\s?\d", following):
        return None
    exponent = int(match["exponent"] or 0) + int(match["power"] or 0)
    value = float(f"{match['sign']}{digits}e{exponent}")
    if match["divisor"] is not None:
        divisor = float(_ungrouped(match["divisor"]) or 0)
        value = value / divisor if divisor else math.inf
    return value if math.isfinite(value) else None


def _ungrouped(digits: str) -> str | None:
    """Return digits without separators of thousands; None where these are at wrong positions."""
    digits = digits.rstrip(f".,{_SPACES}")
    for space in _SPACES:
        digits = digits.replace(space, ",")
    return digits.replace(",", "") if _PLAIN.fullmatch(digits) else None


def _clear(line: str, numbers: list[_Number], index: int) -> float | None:
    """Return the number at an index, or the one after the last `=`; None where it is not alone."""
    results = [position for position, item in enumerate(numbers) if _follows_equals(line, item)]
    index = results[-1] if results else index
    if index and _OUT_OF.fullmatch(line, numbers[index - 1].end, numbers[index].start):
        index -= 1
    number = numbers[index]
    neighbors = numbers[max(index - 1, 0) : index + 2]
    gaps = itertools.pairwise(neighbors)
    if any(_JOINT.fullmatch(line, first.end, second.start) for first, second in gaps):
        return None
    before = max(number.start - _LONGEST_BOUND, 0)
    return None if _BOUND.search(line, before, number.start) else number.value


def _follows_equals(line: str, number: _Number) -> bool:
    position = number.start - 1
    while position >= 0 and line[position].isspace():
        position -= 1
    return position >= 0 and line[position] == "="
