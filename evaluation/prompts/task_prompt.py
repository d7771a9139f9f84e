"""The wording of a task of one's own, with the keys of lm-evaluation-harness.

The section `prompt` of a task file: Jinja templates over `question`, `context`, `choices` (texts of
the options), `labels`, `options` (label to text), `subject`, `language`, `id` and, in a task with
`fields`, `doc` (the record).
"""

from collections.abc import Sequence
from typing import Any

from pydantic.dataclasses import dataclass

from evaluation.prompts import wording
from evaluation.prompts.template import Prompt, PromptTemplate, Turns, right
from evaluation.question_sets import expressions, jsonl
from evaluation.question_sets.expressions import ExpressionError, Template
from evaluation.question_sets.question import Question
from galen import recipe
from galen.errors import DataError


@dataclass(kw_only=True, config=recipe.STRICT)
class TaskPrompt:
    """Wording of the task; few-shot examples have the same, with their answers."""

    description: Template = ""
    """Precedes the few-shot examples and the question."""
    doc_to_text: Template
    """The question with all that precedes the answer, such as the list of options."""
    doc_to_choice: Template = "{{ labels }}"
    """The answer for each option: `{{ labels }}`, or `{{ choices }}` for the options' texts."""
    target_delimiter: str = " "
    """Between the question and the answer."""
    fewshot_delimiter: str = "\n\n"
    """After each few-shot example."""

    def __post_init__(self) -> None:
        self.yaml = "the task file"

    def template(self) -> PromptTemplate:
        """Return the prompt template."""
        return PromptTemplate(
            self.render,
            few_shot_by_subject=True,
            ranks_continuations=True,
            follows_task=True,
            supports_turns=True,
        )

    def render(self, question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
        """Render a question after few-shot examples.

        Raises:
            DataError: a template fails for the question.
        """
        description = self._rendered("description", self.description, question)
        text = description
        examples: list[tuple[str, str]] = []
        for example in few_shot:
            target = right(example, self._continuations(example))
            example_text = self._text(example)
            text += example_text + target + self.fewshot_delimiter
            examples.append((example_text, target.removeprefix(self.target_delimiter)))
        continuations = self._continuations(question)
        own_text = self._text(question)
        return Prompt(
            text + own_text,
            continuations,
            right(question, continuations),
            target_delimiter=self.target_delimiter,
            turns=Turns(own_text, tuple(examples), description),
        )

    def _text(self, question: Question) -> str:
        return self._rendered("doc_to_text", self.doc_to_text, question)

    def _continuations(self, question: Question) -> dict[str, str]:
        """Return the answer for each option, by its label."""
        try:
            choices = expressions.evaluate(self.doc_to_choice, _variables(question))
        except ExpressionError as error:
            raise self._error("doc_to_choice", question, str(error)) from None
        texts = list(choices) if isinstance(choices, list | tuple) else []
        if len(texts) != len(question.options) or not all(_is_text(text) for text in texts):
            raise self._error(
                "doc_to_choice",
                question,
                f"must be a list with a text for each of the {len(question.options)} options, such"
                f" as {{{{ labels }}}}, not {jsonl.shown(choices)}",
            )
        double = next((text for text in texts if texts.count(text) > 1), None)
        if double is not None:
            raise self._error(
                "doc_to_choice", question, f"two options have the same answer {double!r}"
            )
        pairs = zip(question.options, texts, strict=True)
        return {label: self.target_delimiter + text for label, text in pairs}

    def _rendered(self, key: str, template: str, question: Question) -> str:
        return wording.rendered(self.yaml, key, template, question, _variables(question))

    def _error(self, key: str, question: Question, message: str) -> DataError:
        return wording.error(self.yaml, key, question, message)


def _variables(question: Question) -> dict[str, Any]:
    """Return the variables of the templates."""
    return {
        **wording.variables(question),
        "choices": list(question.options.values()),
        "labels": list(question.options),
        "options": question.options,
    }


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
