"""Prompt templates by name, used by `finetune/` too, so that training and test agree.

    prompt = prompts.get_template("meditron_chat")(question)
    prompt.text  # the model's input
    prompt.target  # the training target
    prompt = prompts.get_template("biomistral")(question, few_shot)

Templates:
    lm_eval: lm-evaluation-harness' `medqa_4options`, `medmcqa`, `pubmedqa`, `mmlu_*`, `headqa_*`,
        `truthfulqa_mc1`
    lm_eval_continuation: its `mmlu_*_continuation`, where the options' texts are the answers
        (continuation scoring): a small model that cannot tell letters apart can answer so
    meditron, meditron_cot: MEDITRON's base models, direct and with chain of thought
    meditron_chat, meditron_chat_cot: its fine-tuned models
    mmedbench, mmedbench_rationale: MMedLM, direct and with a rationale first
    biomistral: BioMistral, a letter after an open bracket
    chat, chat_cot: chat models, direct and with a chain of thought; with `_json` or `_boxed` in
        another answer format
"""

from evaluation.prompts import biomistral, chat, lm_eval, meditron, mmedbench
from evaluation.prompts.template import Prompt, PromptTemplate
from galen.errors import UsageError, did_you_mean

__all__ = ["LIKELIHOOD_TEMPLATES", "TEMPLATES", "Prompt", "PromptTemplate", "get_template"]

TEMPLATES: dict[str, PromptTemplate] = {
    **lm_eval.TEMPLATES,
    **meditron.TEMPLATES,
    **mmedbench.TEMPLATES,
    **biomistral.TEMPLATES,
    **chat.TEMPLATES,
}
"""Name to template."""

LIKELIHOOD_TEMPLATES = [name for name, item in TEMPLATES.items() if item.ranks_continuations]
"""Names of the templates whose answer is the likeliest continuation."""


def get_template(name: str) -> PromptTemplate:
    """Return the prompt template of a name.

    Raises:
        UsageError: there is no such template.
    """
    if name not in TEMPLATES:
        raise UsageError(f"unknown protocol {name!r}; {did_you_mean(name, TEMPLATES)}")
    return TEMPLATES[name]
