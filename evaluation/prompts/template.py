"""Output of a prompt form: the model's input, the possible answers, and the training target."""

from collections.abc import Callable
from dataclasses import dataclass

from evaluation.question_sets.question import Question


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as a model reads it."""

    text: str
    """All that stands before the answer."""
    continuations: dict[str, str]
    """For each option's letter, the text that would answer with it."""
    target: str = ""
    """The whole right answer as fine-tuning in this form teaches it."""


Form = Callable[..., Prompt]
"""`form(question)`, or `form(question, demonstrations)` with worked questions that stand before it.
"""


def right(question: Question, continuations: dict[str, str]) -> str:
    """Return the continuations of all right options, joined by commas."""
    first, *others = [
        continuations[letter] for letter in question.options if letter in question.answers
    ]
    return first + "".join(f",{other.strip()}" for other in others)


def lines(question: Question) -> str:
    """Return the options as `A. …`, one a line."""
    return "\n".join(f"{letter}. {text}" for letter, text in question.options.items())
