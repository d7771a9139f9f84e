"""Removal of the thinking that a reasoning model writes before its answer.

Thinking names options that the model drops again, so none of it may be read as the answer. A
block that was opened and never closed was cut off by the token budget.
"""

import re

_BLOCKS = (
    (
        r"<(?:seed:)?(?:think|thinking|thought|reasoning|scratchpad|analysis)>",
        r"</(?:seed:)?(?:think|thinking|thought|reasoning|scratchpad|analysis)>",
    ),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<unused94>", r"<unused95>"),
    # gpt-oss: channels; with the special tokens removed only the words are left
    (
        r"<\|channel\|>(?:analysis|commentary)[^<]{0,40}<\|message\|>",
        r"<\|channel\|>final[^<]{0,40}<\|message\|>",
    ),
    (r"\Aanalysis(?=[A-Z])", r"assistantfinal"),
    # HuatuoGPT-o1
    (r"\A\s*+#{1,4} *Thinking[ \t]*\n", r"\n[ \t]*+#{1,4} *Final (?:Response|Answer)[ \t]*\n"),
)
"""Opening and closing marker of the model families."""
_OPENING = re.compile("|".join(opening for opening, _ in _BLOCKS), re.IGNORECASE)
_CLOSING = re.compile("|".join(closing for _, closing in _BLOCKS), re.IGNORECASE)


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
