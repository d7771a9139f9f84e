"""MMedLM's templates for MMedBench (arXiv 2402.13963).

The Alpaca frame with an instruction in English and the options in one line.

Frame, instructions and input are those of `finetune/train.py` and `inference/inference.py` of
MAGIC-AI4Med/MMedLM, with the sentence about the best treatment in every question and the space
after the last option, as there. The published inference code has a second space before "You
should"; this is the training code's template, for training and test alike.
"""

from collections.abc import Sequence

from evaluation.prompts.template import Prompt, PromptTemplate
from evaluation.question_sets.question import Question

_NAMES = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "fr": "French",
    "ru": "Russian",
    "es": "Spanish",
}
_NAMES |= {"de": "German", "pt": "Portuguese", "ar": "Arabic"}
_FRAME = (
    "Below is an instruction that describes a task, paired with an input that provides further"
    " context. Write a response that appropriately completes the request.\n\n###"
    " Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_TREATMENT = "Which of the following is the best treatment for this patient?"
_DIRECT = (
    "You're a {language} doctor, kindly address the medical queries according to the patient's"
    " account. Answer with the best option directly."
)
_RATIONALE = (
    "You're a {language} doctor, kindly address the medical queries according to the patient's"
    " account in {language}. Let\N{RIGHT SINGLE QUOTATION MARK}s solve this step-by-step. You"
    " should first give the reason in {language} for your choice. Then you should give the right"
    " answer index of the question."
)


def mmedbench(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the prompt that asks for the right option directly."""
    return Prompt(_text(question, _DIRECT), _answers(question), _answer(question.answer))


def mmedbench_rationale(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the prompt that asks for the reason first, then for the right option."""
    return Prompt(
        _text(question, _RATIONALE),
        _answers(question),
        f"###Rationale: {question.rationale}\n{_answer(question.answer)}",
    )


def _text(question: Question, instruction: str) -> str:
    options = "".join(f"{letter}. {text} " for letter, text in question.options.items())
    context = f"{question.context} " if question.context else ""
    return _FRAME.format(
        instruction=instruction.format(language=_NAMES.get(question.language, question.language)),
        input=f"###Question: {context}{question.question} {_TREATMENT} ###Options: {options}",
    )


def _answers(question: Question) -> dict[str, str]:
    return {letter: _answer(letter) for letter in question.options}


def _answer(letters: str) -> str:
    return f"###Answer: OPTION {letters} IS CORRECT."


TEMPLATES = {
    "mmedbench": PromptTemplate(mmedbench, supports_few_shot=False),
    "mmedbench_rationale": PromptTemplate(mmedbench_rationale, supports_few_shot=False),
}
