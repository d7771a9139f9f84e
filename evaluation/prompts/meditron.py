"""MEDITRON's templates (arXiv 2311.16079): `{system}\\n{question block}\\n{user}\\n`.

System and user strings, question block and order of the parts are those of
`evaluation/instructions.json` and `evaluation/benchmarks.py` of epfLLM/meditron. Few-shot prompts
end without the last line break, as there.
"""

from collections.abc import Sequence

from evaluation.prompts.template import Prompt, PromptTemplate, lines
from evaluation.question_sets.question import Question

_KNOWLEDGE = (
    "Based on your understanding of basic and clinical science, medical knowledge, and mechanisms"
    " underlying health, disease, patient care, and modes of therapy"
)
_SYSTEMS = {
    "medqa": (
        "You are a medical doctor taking the US Medical Licensing Examination. You need to"
        " demonstrate your understanding of basic and clinical science, medical knowledge, and"
        " mechanisms underlying health, disease, patient care, and modes of therapy. Show your"
        " ability to apply the knowledge essential for medical practice. For the following"
        " multiple-choice question, select one correct answer from A to E. Base your answer on the"
        " current and standard practices referenced in medical guidelines."
    ),
    "medmcqa": (
        "You are a medical doctor answering realworld medical entrance exam questions."
        f" {_KNOWLEDGE}, answer the following multiple-choice question. Select one correct answer"
        " from A to D. Base your answer on the current and standard practices referenced in"
        " medical guidelines."
    ),
    "pubmedqa": (
        "As an expert doctor in clinical science and medical knowledge, can you tell me if the"
        " following statement is correct? Answer yes, no, or maybe."
    ),
    "truthfulqa": (
        "Please truthfully answer the following multiple-choice question. Please ensure that your"
        " choice is socially unbiased and positive. If you don't know the answer to a question,"
        " please don't share false information."
    ),
}
_SYSTEMS["mmlu"] = _SYSTEMS["medmcqa"]
_OTHER = "Answer the following multiple choice question."
# the published file has this apostrophe here only
_COT_USERS = {"pubmedqa": "Let\N{RIGHT SINGLE QUOTATION MARK}s think step by step."}
_COT_USER = "Let's think step by step."
_USER = "The answer is:"


def meditron(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the prompt without chain of thought; few-shot examples follow the system string."""
    text = f"{_system(question)}\n{_examples(few_shot)}{block(question)}\n{_USER}"
    return Prompt(
        text if few_shot else text + "\n",
        _answers(question, " " if few_shot else ""),
        gold(question),
    )


def meditron_cot(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the chain-of-thought prompt; few-shot examples give rationale, then answer."""
    examples = "".join(f"{_marked(item)}\n{cot_gold(item)}\n\n" for item in few_shot)
    system = "" if question.question_set == "truthfulqa" else _system(question)
    text = (
        f"{system}\n{examples}{block(question)}\n{_COT_USERS.get(question.question_set, _COT_USER)}"
    )
    return Prompt(text if few_shot else text + "\n", _answers(question, ""), cot_gold(question))


def meditron_chat(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the prompt of the fine-tuned models, with the roles `question` and `answer`."""
    prompt = meditron(question, few_shot)
    return Prompt(_chat(prompt.text), _answers(question, ""), prompt.target)


def meditron_chat_cot(question: Question, few_shot: Sequence[Question] = ()) -> Prompt:
    """Render the chain-of-thought prompt of MEDITRON's fine-tuned models."""
    prompt = meditron_cot(question, few_shot)
    return Prompt(_chat(prompt.text), prompt.continuations, prompt.target)


def block(question: Question) -> str:
    """Return the question block.

    For PubMedQA contexts and question; else `Question: …`, a blank line, `Options:`, `A. …`.
    """
    if question.question_set == "pubmedqa":
        return f"{question.context}\n{question.question}"
    text = question.question if question.question.endswith(("?", ".")) else question.question + "?"
    context = f"{question.context}\n" if question.context else ""
    return f"{context}Question: {text}\n\nOptions:\n{lines(question)}"


def gold(question: Question) -> str:
    """Return what is to be answered: a letter, several with commas, or for PubMedQA the word."""
    return (
        question.options[question.answer]
        if question.question_set == "pubmedqa"
        else question.answer
    )


def cot_gold(question: Question) -> str:
    """Return the chain-of-thought target `{explanation}.\\nThe answer is: {X} ###`.

    An explanation's own full stop is not doubled.
    """
    return f"{question.rationale.rstrip().removesuffix('.')}.\nThe answer is: {gold(question)} ###"


def _system(question: Question) -> str:
    return _SYSTEMS.get(question.question_set, _OTHER)


def _examples(few_shot: Sequence[Question]) -> str:
    return "".join(f"{block(item)}\n{_USER} {gold(item)}\n\n" for item in few_shot)


def _marked(question: Question) -> str:
    text = block(question)
    return text if "Question:" in text else f"Question: {text}"


def _answers(question: Question, space: str) -> dict[str, str]:
    words = question.question_set == "pubmedqa"
    return {
        letter: space + (text if words else letter) for letter, text in question.options.items()
    }


def _chat(prompt: str) -> str:
    return f"<|im_start|>question\n{prompt}<|im_end|>\n<|im_start|>answer\n"


_CHAT_TOKEN = "<|im_start|>"
TEMPLATES = {
    "meditron": PromptTemplate(meditron),
    "meditron_cot": PromptTemplate(meditron_cot),
    "meditron_chat": PromptTemplate(meditron_chat, required_token=_CHAT_TOKEN),
    "meditron_chat_cot": PromptTemplate(meditron_chat_cot, required_token=_CHAT_TOKEN),
}
