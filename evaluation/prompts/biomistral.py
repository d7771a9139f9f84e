"""BioMistral's template (arXiv 2402.10373).

As `Data/Evaluation/BioInstructQA.py` of BioMistral/BioMistral builds it.
"""

from collections.abc import Sequence

from evaluation.prompts.template import Prompt, PromptTemplate
from evaluation.question_sets.question import Question

_INSTRUCTION = (
    "The following are multiple choice questions (with answers) about medical knowledge. \n "
)


def biomistral(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render BioMistral's prompt: the answer is the letter after an open bracket."""
    before = "".join(f"{_element(item)}{item.answer} \n " for item in few_shot)
    return Prompt(
        _INSTRUCTION + before + _element(question),
        {letter: letter for letter in question.options},
        question.answer,
    )


def _element(question: Question) -> str:
    options = " \n ".join(f"({letter.upper()}) {text}" for letter, text in question.options.items())
    context = f"{question.context} \n " if question.context else ""
    return f"{context}**Question:** {question.question} \n {options} \n **Answer:**("


TEMPLATES = {"biomistral": PromptTemplate(biomistral)}
