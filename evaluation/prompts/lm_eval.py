"""Templates of lm-evaluation-harness 0.4 (`lm_eval/tasks/…`).

The answer is the likeliest continuation, after one space.
"""

from collections.abc import Sequence

from evaluation.prompts.template import Prompt, PromptTemplate, Turns, lines, right
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
    return _assembled(description, [_prompt(item) for item in few_shot], _prompt(question))


def lm_eval_continuation(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the prompt of `mmlu_continuation` and `headqa` (continuation scoring).

    The options are not listed; their texts are the continuations.
    """
    return _assembled(
        "", [_continuation_prompt(item) for item in few_shot], _continuation_prompt(question)
    )


def _assembled(description: str, few_shot: Sequence[Prompt], prompt: Prompt) -> Prompt:
    """Return a prompt after a description and few-shot examples, each with its answer."""
    before = "".join(f"{example.text}{example.target}\n\n" for example in few_shot)
    examples = tuple((example.text, example.target.removeprefix(" ")) for example in few_shot)
    turns = Turns(prompt.text, examples, description)
    text = description + before + prompt.text
    return Prompt(text, prompt.continuations, prompt.target, turns)


def _continuation_prompt(question: Question) -> Prompt:
    continuations = _texts(question)
    return Prompt(_open(question), continuations, right(question, continuations))


def _prompt(question: Question) -> Prompt:
    words = question.question_set == "pubmedqa"
    continuations = (
        _texts(question) if words else {letter: f" {letter}" for letter in question.options}
    )
    return Prompt(_question(question), continuations, right(question, continuations))


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
