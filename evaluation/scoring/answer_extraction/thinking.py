"""Removal of the thinking that a reasoning model writes before its answer.

Thinking names options that the model drops again, so none of it may be read as the answer. A
block that was opened and never closed was cut off by the token budget. The markers of all families
count, because a text does not say which model wrote it.
"""

import re
from collections.abc import Iterable

from evaluation.chat_models.thinking import FAMILIES


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_OPENING = _any_of(item.opening_pattern or re.escape(item.opening) for item in FAMILIES.values())
_CLOSING = _any_of(item.closing_pattern or re.escape(item.closing) for item in FAMILIES.values())


def strip_thinking(text: str) -> tuple[str, bool]:
    """Return the text outside of thinking, and whether thinking was cut off.

    Chat templates may open the block in the prompt, so a closing marker alone ends thinking, too.
    """
    closings = list(_CLOSING.finditer(text))
    if closings and closings[0].start() < _first_opening(text):
        text = text[closings[0].end() :]
    answer: list[str] = []
    position = 0
    while opening := _OPENING.search(text, position):
        answer.append(text[position : opening.start()])
        closing = _CLOSING.search(text, opening.end())
        if closing is None:
            return " ".join(answer), True
        position = closing.end()
    answer.append(text[position:])
    # a second closing marker: whatever comes before it was thinking as well
    return _CLOSING.split(" ".join(answer))[-1], False


def _first_opening(text: str) -> int:
    opening = _OPENING.search(text)
    return opening.start() if opening else len(text)
