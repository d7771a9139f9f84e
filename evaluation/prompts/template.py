"""Prompt templates: how a question becomes the model's input, the answers and the target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.question_sets.question import Question


@dataclass(frozen=True, slots=True)
class Turns:
    """A prompt as the turns of a conversation, for chat templates."""

    question: str
    """The user's last message."""
    examples: tuple[tuple[str, str], ...] = ()
    """Few-shot examples: the user's message and the assistant's."""
    system: str = ""
    """The beginning of the prompt's text that describes the task, with the space after it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question."""

    text: str
    """The model's input: everything before the answer."""
    continuations: dict[str, str]
    """Option letter to the text that answers with it."""
    target: str = ""
    """The complete correct answer, as fine-tuning with this template teaches it."""
    target_delimiter: str = " "
    """What precedes an answer's text in `continuations`; not counted in its length."""
    turns: Turns | None = None
    """The same as a conversation; None: the text is one message of the user."""
    is_conversation: bool = False
    """Whether a chat template rendered the text, with all special tokens and no space to move."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template: the function that renders a question, and what protocols must know about it."""

    render: Callable[..., Prompt]
    """`render(question)`, or `render(question, few_shot)` with worked questions before it."""
    supports_few_shot: bool = True
    """Whether worked questions may precede the question."""
    few_shot_by_subject: bool = False
    """Whether few-shot examples are those of the question's own subject, where the task says so."""
    ranks_continuations: bool = False
    """Whether the answer is the likeliest continuation, scored by its log-likelihood."""
    follows_task: bool = False
    """Whether a task's own wording, few-shot rule and metric replace those of the protocol."""
    supports_turns: bool = False
    """Whether few-shot examples can be turns of a conversation (`Prompt.turns`)."""
    required_token: str = ""
    """A special token of the models that this template is for; "" for none."""

    def __call__(self, question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
        """Render a question after few-shot examples."""
        return self.render(question, few_shot)


def right(question: Question, continuations: dict[str, str]) -> str:
    """Return the continuations of all right options, joined by commas."""
    first, *others = [
        continuations[letter] for letter in question.options if letter in question.answers
    ]
    return first + "".join(f",{other.strip()}" for other in others)


def lines(question: Question) -> str:
    """Return the options as `A. …`, one a line."""
    return "\n".join(f"{letter}. {text}" for letter, text in question.options.items())
