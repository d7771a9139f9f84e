"""The robust reader: which options an answer names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.scoring.answer_extraction import choices as option_choices
from evaluation.scoring.answer_extraction import conclusions, structured
from evaluation.scoring.answer_extraction.choices import Options
from evaluation.scoring.answer_extraction.declarations import (
    Certainty,
    Declaration,
    declarations,
)
from evaluation.scoring.answer_extraction.normalization import normalize
from evaluation.scoring.answer_extraction.thinking import strip_thinking

_OPTIONS_AGAIN = re.compile(r"\n[ \t]*+(?:Answer )?(?:Options|Choices):?[ \t]*\n", re.IGNORECASE)


class Status(StrEnum):
    """What came of an answer."""

    ANSWERED = "answered"
    UNPARSED = "unparsed"
    TRUNCATED_THINKING = "truncated_thinking"
    """The token budget ended inside the thinking; there is no answer to parse."""


@dataclass(frozen=True)
class Extraction:
    """The options that an answer names, in the question's order."""

    letters: tuple[str, ...] | None
    status: Status


def read(text: str, options: Options, *, allows_several: bool = True) -> Extraction:
    """Return the options that an answer names, and why there are none.

    Args:
        text: the model's output, with its thinking.
        options: letter to text.
        allows_several: whether the question may have several correct options; an answer that
            names several is unparsed otherwise.
    """
    answer, truncated = strip_thinking(text)
    letters = _letters(normalize(answer), options)
    if letters and (allows_several or len(letters) == 1):
        return Extraction(letters, Status.ANSWERED)
    return Extraction(None, Status.TRUNCATED_THINKING if truncated else Status.UNPARSED)


def extract(text: str, options: Options, *, allows_several: bool = True) -> tuple[str, ...] | None:
    """Return the options that an answer names, in the options' order; None when it is unparsed."""
    return read(text, options, allows_several=allows_several).letters


def majority(extracted: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Return the majority answer of the readable ones; ties go to the earliest."""
    votes = [answer for answer in extracted if answer is not None]
    return max(votes, key=votes.count) if votes else None


def _letters(text: str, options: Options) -> tuple[str, ...] | None:
    """Return the letters of an answer, or of what comes before it repeats the options."""
    before, *repeated = _OPTIONS_AGAIN.split(text, maxsplit=1)
    letters = _named(before, options)
    return _named(text, options) if repeated and letters is None else letters


def _named(text: str, options: Options) -> tuple[str, ...] | None:
    if not text.strip():
        return None
    reader = option_choices.reader(options)
    text = reader.texts.mask(text)
    found = structured.declarations(text, reader)
    if not found:
        found = [*declarations(text, reader), *conclusions.lines(text, reader)]
        found = found or list(conclusions.conclusion(text, reader))
        if conclusions.is_left_open(text, reader):
            found = [one for one in found if one.certainty >= Certainty.DECLARED]
        if conclusions.is_cut_off(text):
            found = [one for one in found if one.certainty > Certainty.PLAUSIBLE]
    chosen = _most_certain(found)
    if chosen is None:
        return None
    return tuple(letter for letter in options if letter in chosen) or None


def _most_certain(found: list[Declaration]) -> str | None:
    """Return the letters of the last of the most certain declarations.

    Of several different verdicts none is the answer: a list of statements may call many correct.
    """
    if not found:
        return None
    top = max(one.certainty for one in found)
    best = [one for one in found if one.certainty == top]
    if top <= Certainty.VERDICT and len({one.letters for one in best}) > 1:
        return None
    return max(best, key=lambda one: one.position).letters
