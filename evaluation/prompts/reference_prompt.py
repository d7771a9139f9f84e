"""The wording of a task with generated answers, with the keys of lm-evaluation-harness."""

from collections.abc import Sequence
from typing import Any

from pydantic.dataclasses import dataclass

from evaluation.prompts import wording
from evaluation.prompts.template import Prompt, Turns
from evaluation.question_sets.expressions import Template
from evaluation.question_sets.question import Question
from evaluation.question_sets.reference_reader import ReferenceQuestion
from galen import recipe
from galen.errors import DataError


@dataclass(kw_only=True, config=recipe.STRICT)
class ReferencePrompt:
    """Wording of the task: Jinja templates.

    They see `question`, `context`, `answer` (the first reference), `answers`, `rationale`,
    `subject`, `language`, `id` and the record as `doc`.
    """

    description: Template = ""
    """Precedes the few-shot examples and the question; the system message of chat models."""
    doc_to_text: Template = "{% if context %}{{ context }}\n\n{% endif %}{{ question }}\nAnswer:"
    """The question with all that precedes the answer."""
    doc_to_target: Template = "{{ answer }}"
    """The answer of a few-shot example."""
    target_delimiter: str = " "
    """Between the question and the answer."""
    fewshot_delimiter: str = "\n\n"
    """After each few-shot example."""

    def __post_init__(self) -> None:
        self.yaml = "the task file"

    def render(self, question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
        """Render a question after few-shot examples.

        Raises:
            DataError: a template fails for the question.
        """
        description = self._rendered("description", self.description, question)
        text = description
        examples: list[tuple[str, str]] = []
        for example in few_shot:
            example_text = self._rendered("doc_to_text", self.doc_to_text, example)
            target = self._rendered("doc_to_target", self.doc_to_target, example)
            text += example_text + self.target_delimiter + target + self.fewshot_delimiter
            examples.append((example_text, target))
        own_text = self._rendered("doc_to_text", self.doc_to_text, question)
        if not own_text.strip():
            raise self._error("doc_to_text", question, "the prompt is blank")
        turns = Turns(own_text, tuple(examples), description)
        return Prompt(text + own_text, {}, target_delimiter=self.target_delimiter, turns=turns)

    def _rendered(self, key: str, template: str, question: Question) -> str:
        return wording.rendered(self.yaml, key, template, question, _variables(question))

    def _error(self, key: str, question: Question, message: str) -> DataError:
        return wording.error(self.yaml, key, question, message)


def _variables(question: Question) -> dict[str, Any]:
    """Return the variables of the templates."""
    values = wording.variables(question)
    values |= {"answer": question.answer, "rationale": question.rationale}
    if isinstance(question, ReferenceQuestion):
        values["answers"] = list(question.references)
    return values
