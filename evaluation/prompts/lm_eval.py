"""Templates of lm-evaluation-harness 0.4 (`lm_eval/tasks/…`).

The answer is the likeliest continuation, after one space.
"""

from collections.abc import Sequence

from evaluation.prompts.template import Prompt, PromptTemplate, lines, right
from evaluation.question_sets.question import Question


def lm_eval(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the harness' prompt for the question's set; MedQA's for sets that it lacks.

    Sets: `medqa_4options`, `medmcqa`, `pubmedqa`, `mmlu_*`.

    A question of another set may have a context, which precedes it with a blank line between.
    Few-shot examples precede it with their answers, a blank line after each; MMLU's subject
    precedes all.
    """
    description = ""
    if question.question_set == "mmlu":
        subject = question.subject.replace("_", " ")
        description = (
            f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        )
    shown = (_prompt(item) for item in few_shot)
    return _prompt(
        question, description + "".join(f"{prompt.text}{prompt.target}\n\n" for prompt in shown)
    )


def lm_eval_continuation(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the prompt of `mmlu_continuation` and `headqa` (continuation scoring).

    The options are not listed; their texts are the continuations.
    """
    before = "".join(f"{_open(item)}{right(item, _texts(item))}\n\n" for item in few_shot)
    continuations = _texts(question)
    return Prompt(before + _open(question), continuations, right(question, continuations))


def _prompt(question: Question, before: str = "") -> Prompt:
    words = question.question_set == "pubmedqa"
    continuations = (
        _texts(question) if words else {letter: f" {letter}" for letter in question.options}
    )
    return Prompt(before + _question(question), continuations, right(question, continuations))


def _question(question: Question) -> str:
    if question.question_set == "pubmedqa":
        return f"Abstract: {question.context}\nQuestion: {question.question}\nAnswer:"
    if question.question_set == "mmlu":
        return f"{question.question.strip()}\n{lines(question)}\nAnswer:"
    between = "Choices:\n" if question.question_set == "medmcqa" else ""
    return f"{_context(question)}Question: {question.question}\n{between}{lines(question)}\nAnswer:"


def _open(question: Question) -> str:
    return f"{_context(question)}Question: {question.question}\nAnswer:"


def _texts(question: Question) -> dict[str, str]:
    return {letter: f" {text}" for letter, text in question.options.items()}


def _context(question: Question) -> str:
    return f"{question.context}\n\n" if question.context else ""


TEMPLATES = {
    "lm_eval": PromptTemplate(
        lm_eval, few_shot_by_subject=True, ranks_continuations=True, follows_task=True
    ),
    "lm_eval_continuation": PromptTemplate(
        lm_eval_continuation, few_shot_by_subject=True, ranks_continuations=True
    ),
}
