"""Templates for chat models: the question as one message, with the format of the answer.

They are Galen's own and belong to no paper. The instruction follows the question, as reports of
chat and reasoning models do; `\\boxed{}` and its sentence are those that DeepSeek-R1 and Qwen3
recommend.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.prompts.template import Prompt, PromptTemplate, Turns, lines
from evaluation.question_sets.question import Question


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How an answer is written."""

    direct: str
    """Asks for the answer alone; `{letters}` stands for what is asked for."""
    after_reasoning: str
    """Asks for the answer at the end of a chain of thought."""
    write: Callable[[str], str]
    """Returns an answer of letters in this format."""
    cue: str
    """What a model continues with the letter."""


FORMATS = {
    "letter": AnswerFormat(
        "Answer with {letters} only.",
        "Think step by step. Then write the last line as: Answer: LETTER, where LETTER is"
        " {letters}.",
        lambda letters: letters,
        "Answer: ",
    ),
    "json": AnswerFormat(
        'Answer with a JSON object only: {{"answer": "LETTER"}}, where LETTER is {letters}.',
        "Think step by step. Then write the last line as a JSON object:"
        ' {{"answer": "LETTER"}}, where LETTER is {letters}.',
        lambda letters: json.dumps({"answer": letters}),
        '{"answer": "',
    ),
    "boxed": AnswerFormat(
        "Put {letters} within \\boxed{{}}.",
        "Please reason step by step, and put {letters} within \\boxed{{}} as your final answer.",
        lambda letters: f"\\boxed{{{letters}}}",
        "The final answer is \\boxed{",
    ),
}
"""Answer formats by the name that `--answer-format` takes."""


def json_schema(question: Question) -> str:
    """Return the JSON schema of an answer to a question."""
    answer: dict[str, Any] = {"type": "string"}
    if not question.allows_several:
        answer["enum"] = list(question.options)
    return json.dumps(
        {
            "type": "object",
            "properties": {"answer": answer},
            "required": ["answer"],
            "additionalProperties": False,
        }
    )


def chat(
    question: Question,
    few_shot: Sequence[Question] = (),
    *,
    answer_format: AnswerFormat,
    reasons: bool,
) -> Prompt:
    """Render a question for a chat model.

    Args:
        question: the question.
        few_shot: worked questions.
        answer_format: how the answer is written.
        reasons: whether the model writes a chain of thought first; few-shot examples show theirs.
    """
    examples: list[tuple[str, str]] = []
    before = ""
    for item in few_shot:
        example = (
            _message(item, answer_format, reasons),
            _target(item, answer_format, reasons),
        )
        examples.append(example)
        before += f"{example[0]}\n\n{example[1]}\n\n"
    text = _message(question, answer_format, reasons)
    return Prompt(
        f"{before}{text}\n\n",
        {letter: letter for letter in question.options},
        _target(question, answer_format, reasons),
        target_delimiter="",
        turns=Turns(text, tuple(examples)),
    )


def _message(question: Question, answer_format: AnswerFormat, reasons: bool) -> str:
    context = f"{question.context}\n\n" if question.context else ""
    letters = "the letter of the correct option"
    if question.allows_several:
        letters = "the letter of the correct option (of several, all letters with commas)"
    instruction = answer_format.after_reasoning if reasons else answer_format.direct
    return (
        f"{context}{question.question}\n\n{lines(question)}\n\n"
        f"{instruction.format(letters=letters)}"
    )


def _target(question: Question, answer_format: AnswerFormat, reasons: bool) -> str:
    answer = answer_format.write(question.answer)
    if not reasons:
        return answer
    if answer_format is FORMATS["letter"]:
        answer = f"Answer: {answer}"
    return f"{question.rationale.rstrip()}\n\n{answer}"


def template_name(name: str, answer_format: str) -> str:
    """Return the template of an answer format: `chat`, `chat_json`, `chat_boxed`."""
    return name if answer_format == "letter" else f"{name}_{answer_format}"


TEMPLATES = {
    template_name(name, format_name): PromptTemplate(
        functools.partial(chat, answer_format=answer_format, reasons=reasons),
        supports_turns=True,
    )
    for name, reasons in (("chat", False), ("chat_cot", True))
    for format_name, answer_format in FORMATS.items()
}
