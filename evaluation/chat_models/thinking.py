"""Thinking of reasoning models: markers of the families, and its separation from the answer.

The markers are those of the model's chat template or vocabulary; they decide how thinking is closed
(budget forcing) and counted. What they leave, `evaluation.scoring.answer_extraction` reads; where
the family is unknown, it looks for the markers of all families, by their patterns.
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
    opening_pattern: str = ""
    """Regular expression of the spellings of the opening marker; "" for the marker alone."""
    closing_pattern: str = ""
    """The same of the closing marker."""
    is_detected: bool = True
    """Whether the closing marker in a template or vocabulary shows that the model thinks."""


_RECIPIENT = r"(?:[^<]|<\|constrain\|>){0,60}"
"""Behind the channel of a gpt-oss message: the tool that gets it, and its format."""
FAMILIES = {
    # before the others: its vocabulary has both
    "gpt-oss": Markers(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|channel|>final<|message|>",
        # commentary is no answer either; the words alone are left without the special tokens
        rf"<\|channel\|>(?:analysis|commentary){_RECIPIENT}<\|message\|>|\Aanalysis(?=[A-Z])",
        rf"<\|channel\|>final{_RECIPIENT}<\|message\|>|assistantfinal",
    ),
    "magistral": Markers("[THINK]", "[/THINK]"),
    "apertus": Markers("<|inner_prefix|>", "<|inner_suffix|>"),
    "seed-oss": Markers("<seed:think>", "</seed:think>"),
    # the vocabulary of every Gemma has these tokens
    "medgemma": Markers("<unused94>", "<unused95>", is_detected=False),
    "sky-t1": Markers("<|begin_of_thought|>", "<|end_of_thought|>", is_detected=False),
    "huatuogpt-o1": Markers(
        "## Thinking\n\n",
        "\n\n## Final Response\n\n",
        opening_pattern=r"\A\s*+#{1,4} *Thinking[ \t]*\n",
        closing_pattern=r"\n[ \t]*+#{1,4} *Final (?:Response|Answer)[ \t]*\n",
        is_detected=False,
    ),
    "kimi": Markers("◁think▷", "◁/think▷"),
    "command-a": Markers("<|START_THINKING|>", "<|END_THINKING|>"),
    "think": Markers(
        "<think>",
        "</think>",
        opening_pattern=r"<(?:think|thinking|thought|reasoning|scratchpad|analysis)>",
        closing_pattern=r"</(?:think|thinking|thought|reasoning|scratchpad|analysis)>",
    ),
}
"""Markers by family; `think` is DeepSeek-R1, Qwen3, QwQ, SmolLM3 and many more."""
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
        if not markers.is_detected:
            continue
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
