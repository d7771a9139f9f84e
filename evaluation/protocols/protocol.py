"""Published protocols: prompt template, answer extraction, and number of runs."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from evaluation.prompts.registry import get_template
from galen.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a question becomes a prediction."""

    template: str
    """Name of the prompt template."""
    scoring: Literal["likelihood", "letter", "generation"] = "likelihood"
    """`likelihood`: the likeliest continuation.

    `letter`: the top token of the entire vocabulary, and beside it the likeliest of the options'
    tokens. `generation`: the generated text, read by `evaluation.scoring.answer_extraction`.
    """
    acc_bytes: bool = False
    """With `likelihood`: divide by the UTF-8 bytes of the continuation, without its leading space.

    This is lm-evaluation-harness' `acc_bytes`; its `acc_norm` divides by characters.
    """
    num_fewshot: int = 0
    """Few-shot examples before the question, the same for every question of a run."""
    fewshot_seeds: tuple[int, ...] = (0,)
    """Seeds of the few-shot examples, one run each; scores are means over runs.

    For BioMistral's files 1, 2, 3 are its frozen triples.
    """
    num_samples: int = 1
    """With `generation`: answers sampled for each question (self-consistency).

    The majority of the parsed ones is the prediction.
    """
    temperature: float = 0.0
    """With `generation`: 0 is greedy decoding."""
    max_new_tokens: int = 0
    """With `generation`: maximum length of an answer in tokens."""
    stop: tuple[str, ...] = ()
    """With `generation`: stop strings; the answer is truncated before the first."""
    chain_of_thought: bool = False
    """The answer follows an explanation, so few-shot examples need a rationale."""
    strict_match: Literal["", "meditron", "mmedbench"] = ""
    """Published code whose strict answer extraction is reported beside the flexible one."""


_COT = Protocol(
    "meditron_cot",
    "generation",
    max_new_tokens=1024,
    stop=("###", "$$$"),
    chain_of_thought=True,
    strict_match="meditron",
)
_SC_COT = dataclasses.replace(_COT, num_samples=5, temperature=0.8)
_MMEDBENCH = Protocol("mmedbench", "generation", max_new_tokens=1000, strict_match="mmedbench")

PROTOCOLS: dict[str, Protocol] = {
    "lm_eval": Protocol("lm_eval"),
    "lm_eval_continuation": Protocol("lm_eval_continuation"),
    "lm_eval_continuation_acc_bytes": Protocol("lm_eval_continuation", acc_bytes=True),
    "meditron": Protocol("meditron", "letter", num_fewshot=3, fewshot_seeds=(1234, 432, 32)),
    "meditron_zero_shot": Protocol("meditron", "letter"),
    "meditron_cot": _COT,
    "meditron_sc_cot": _SC_COT,
    "meditron_chat": Protocol("meditron_chat", "letter"),
    "meditron_chat_cot": dataclasses.replace(_COT, template="meditron_chat_cot"),
    "meditron_chat_sc_cot": dataclasses.replace(_SC_COT, template="meditron_chat_cot"),
    "mmedbench": _MMEDBENCH,
    "mmedbench_rationale": dataclasses.replace(
        _MMEDBENCH, template="mmedbench_rationale", chain_of_thought=True
    ),
    "biomistral": Protocol("biomistral", "letter", num_fewshot=3, fewshot_seeds=(1, 2, 3)),
    "biomistral_zero_shot": Protocol("biomistral", "letter"),
}


def protocol(
    name: str,
    *,
    num_fewshot: int | None = None,
    fewshot_seeds: tuple[int, ...] | None = None,
    num_samples: int | None = None,
    max_new_tokens: int | None = None,
) -> Protocol:
    """Return a protocol; settings that are not None override its own.

    Raises:
        UsageError: there is no such protocol, or it does not support a setting.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; {did_you_mean(name, PROTOCOLS)}")
    published = PROTOCOLS[name]
    for option, value in (("--num-samples", num_samples), ("--max-new-tokens", max_new_tokens)):
        if value is not None and published.scoring != "generation":
            raise UsageError(f"{option} is for protocols that generate; {name} does not")
    if num_fewshot is not None and num_fewshot < 0:
        raise UsageError("--num-fewshot must be at least 0")
    if num_fewshot and not get_template(published.template).supports_few_shot:
        raise UsageError(f"--num-fewshot: the template of {name} takes no few-shot examples")
    if num_samples is not None and not published.temperature:
        raise UsageError(
            f"--num-samples: {name} decodes greedily, so that all samples would be the same; use"
            " meditron_sc_cot"
        )
    overrides: dict[str, Any] = {
        "num_fewshot": num_fewshot,
        "fewshot_seeds": fewshot_seeds,
        "num_samples": num_samples,
        "max_new_tokens": max_new_tokens,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    result = dataclasses.replace(published, **overrides)
    if not result.num_fewshot and len(result.fewshot_seeds) > 1:
        # without few-shot examples all runs would be the same
        result = dataclasses.replace(result, fewshot_seeds=result.fewshot_seeds[:1])
    return result
