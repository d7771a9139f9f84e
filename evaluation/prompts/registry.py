"""Prompt forms by name: pure functions, used by `finetune/` too, so that training and test agree.

    prompt = prompts.form("meditron_chat")(question)
    prompt.text  # the model's input
    prompt.target  # the training target
    prompt = prompts.form("biomistral")(question, demonstrations)

Forms:
    lm_eval, lm_eval_continuation: lm-evaluation-harness' `medqa_4options`, `medmcqa`, `pubmedqa`,
        `mmlu_*`; and its `mmlu_continuation` and `headqa`, where the options' texts are the
        answers: a small model that cannot yet tell letters apart can answer so
    meditron, meditron_cot: MEDITRON's base models, direct and with chain of thought
    meditron_chat, meditron_chat_cot: its fine-tuned models
    mmedbench, mmedbench_rationale: MMedLM, direct and with a rationale first
    biomistral: BioMistral, a letter after an open bracket
"""

from evaluation.prompts.biomistral import biomistral
from evaluation.prompts.lm_eval import lm_eval, lm_eval_continuation
from evaluation.prompts.meditron import meditron, meditron_chat, meditron_chat_cot, meditron_cot
from evaluation.prompts.mmedbench import mmedbench, mmedbench_rationale
from evaluation.prompts.template import Form, Prompt
from galen.errors import UsageError, did_you_mean

__all__ = ["FORMS", "PROTOCOLS", "Form", "Prompt", "form"]

FORMS: dict[str, Form] = {
    "lm_eval": lm_eval,
    "lm_eval_continuation": lm_eval_continuation,
    "meditron": meditron,
    "meditron_cot": meditron_cot,
    "meditron_chat": meditron_chat,
    "meditron_chat_cot": meditron_chat_cot,
    "mmedbench": mmedbench,
    "mmedbench_rationale": mmedbench_rationale,
    "biomistral": biomistral,
}
"""Name of a form to the function that puts a question."""

PROTOCOLS: dict[str, Form] = {name: FORMS[name] for name in ("lm_eval", "lm_eval_continuation")}
"""Forms whose answer is the likeliest continuation."""


def form(name: str) -> Form:
    """Return the prompt form of a name.

    Raises:
        UsageError: there is no such form.
    """
    if name not in FORMS:
        raise UsageError(f"unknown protocol {name!r}; {did_you_mean(name, FORMS)}")
    return FORMS[name]
