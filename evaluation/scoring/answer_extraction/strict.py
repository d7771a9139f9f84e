"""Strict extraction as in the published code, fault for fault."""

import re
from collections.abc import Mapping

_YES = ("yes", "oui", "sí", "si", "sim", "ja", "да", "是", "はい", "نعم")
_NO = ("no", "non", "não", "nein", "нет", "否", "不是", "いいえ", "لا")
_MAYBE = ("maybe", "peut-être", "peut être", "quizás", "tal vez", "talvez", "vielleicht")
_MAYBE_ELSEWHERE = ("возможно", "может быть", "可能", "ربما")
_YES_NO_WORDS = frozenset((*_YES, *_NO, *_MAYBE, *_MAYBE_ELSEWHERE))


def extract_meditron(text: str, options: Mapping[str, str]) -> tuple[str, ...] | None:
    """Extract an answer as MEDITRON's code does from a chain of thought.

    The code: epfLLM/meditron, `evaluation/evaluate.py`, `eval`.

    Everything but ASCII letters and digits becomes a space; of what follows the last "answer is"
    the first word counts; of a question with letters only its first character. "maybe" is not known
    there, and any word that begins with a to e is a letter.
    """
    cleaned = " ".join(re.sub(r"[^a-zA-Z0-9]", " ", text.lower()).split())
    words = cleaned.split("answer is")[-1].split()
    if not words:
        return None
    if all(option.strip().lower() in _YES_NO_WORDS for option in options.values()):
        word = {"yesyes": "yes", "nono": "no", "yesno": "yes", "noyes": "no"}.get(
            words[0], words[0]
        )
        return next(
            ((letter,) for letter, option in options.items() if option == word and word != "maybe"),
            None,
        )
    letter = words[0][0].upper()
    return (letter,) if letter in "ABCDE" and letter in options else None


def extract_mmedbench(text: str, options: Mapping[str, str]) -> tuple[str, ...] | None:
    """Extract an answer as MMedLM's `metrics/accuracy.py` does.

    It reads only the literal `###Answer: OPTION A,C IS CORRECT.`.
    """
    rest = (
        text.replace("###Answer: OPTION ", "")
        .replace("IS CORRECT.</s>", "")
        .replace("IS CORRECT.", "")
        .strip()
    )
    letters = rest.split(",")
    return (
        tuple(letter for letter in options if letter in letters)
        if all(letter in options for letter in letters)
        else None
    )


STRICT_EXTRACTORS = {"meditron": extract_meditron, "mmedbench": extract_mmedbench}
"""Strict readers by the name that a protocol gives."""
