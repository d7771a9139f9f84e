"""Thinking of reasoning models: markers of the families, and its separation from the answer.

The markers are those of the model's chat template or vocabulary; they decide how thinking is closed
(budget forcing) and counted. What they leave, `evaluation.scoring.answer_extraction` reads.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts around a model's thinking."""

    opening: str
    closing: str
    closes_with: str = ""
    """What ends thinking where the closing marker alone is not enough; "" for the marker."""
    skips_with: str = ""
    """What begins an answer without thinking where the template cannot say so; "" for nothing."""


FAMILIES = {
    # before the others: its vocabulary has both
    "gpt-oss": Markers(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|channel|>final<|message|>",
    ),
    "magistral": Markers("[THINK]", "[/THINK]"),
    "apertus": Markers("<|inner_prefix|>", "<|inner_suffix|>"),
    "seed-oss": Markers("<seed:think>", "</seed:think>"),
    "kimi": Markers("◁think▷", "◁/think▷"),
    "command-a": Markers("<|START_THINKING|>", "<|END_THINKING|>"),
    "think": Markers("<think>", "</think>"),
}
"""Markers by family; `think` is DeepSeek-R1, Qwen3, QwQ, SmolLM3 and many more.

Gemma has none.
"""
_SIGNS = {"gpt-oss": "<|channel|>"}
"""What shows a family, where it is not the closing marker."""


@dataclass(frozen=True, slots=True)
class Split:
    """An output in two."""

    thinking: str
    answer: str
    is_cut_off: bool
    """Whether thinking was opened and never closed: there is no answer."""


def detect(template: str, vocabulary: Collection[str]) -> Markers | None:
    """Return the markers that a model's chat template or vocabulary has; None without any."""
    for family, markers in FAMILIES.items():
        sign = _SIGNS.get(family, markers.closing)
        if sign in template or sign in vocabulary:
            return markers
    return None


def is_open(prompt: str, markers: Markers) -> bool:
    """Return whether a prompt ends where the model's thinking has begun."""
    return prompt.rstrip().endswith(markers.opening)


def closed(prompt: str, markers: Markers) -> str:
    """Return a prompt without thinking: where it opens some, it is closed again."""
    if not is_open(prompt, markers):
        return prompt + markers.skips_with
    line_break = "" if prompt.endswith("\n") else "\n"
    return f"{prompt}{line_break}{markers.closes_with or markers.closing}\n\n"


def split(text: str, markers: Markers, starts_open: bool = False) -> Split:
    """Return thinking and answer of a model's output.

    Args:
        text: the output.
        markers: of the model.
        starts_open: whether the prompt already opened the thinking.
    """
    before, closing, answer = text.rpartition(markers.closing)
    if closing:
        # a block after the last closing marker is cut off
        answer, opening, rest = answer.partition(markers.opening)
        thinking = before.replace(markers.opening, "").replace(markers.closing, "") + rest
        return Split(thinking, answer, bool(opening))
    if starts_open:
        return Split(text, "", True)
    answer, opening, thinking = text.partition(markers.opening)
    return Split(thinking, answer, bool(opening))
