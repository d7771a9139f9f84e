"""Published protocols: prompt form, answer extraction, and number of runs."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from galen.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a question becomes a prediction."""

    form: str
    """Name of the prompt form."""
    scoring: Literal["likelihood", "letter", "generation"] = "likelihood"
    """`likelihood`: the likeliest continuation.

    `letter`: the top token of the whole vocabulary, and beside it the likeliest of the options'
    tokens. `generation`: the text that the model writes, read by
    `evaluation.scoring.answer_extraction`.
    """
    per_byte: bool = False
    """With `likelihood`.

    Divide by the bytes of the continuation, without its leading space (lm-evaluation-harness'
    `acc_norm`).
    """
    shots: int = 0
    """Demonstrations before the question, the same for every question of a run."""
    runs: tuple[int, ...] = (0,)
    """Seeds of the demonstrations, one run each; scores are means over runs.

    For BioMistral's files 1, 2, 3 are its frozen triples.
    """
    branches: int = 1
    """With `generation`: answers sampled for each question.

    The majority of the readable ones is the prediction.
    """
    temperature: float = 0.0
    """With `generation`: 0 takes the likeliest token."""
    max_new_tokens: int = 0
    """With `generation`: the longest answer in tokens."""
    stop: tuple[str, ...] = ()
    """With `generation`: strings that end the answer; they are cut off."""
    chain_of_thought: bool = False
    """The answer comes after an explanation, so that demonstrations need a rationale."""
    legacy: Literal["", "meditron", "mmedbench"] = ""
    """Whose strict reading is reported beside the robust one."""


_COT = Protocol(
    "meditron_cot",
    "generation",
    max_new_tokens=1024,
    stop=("###", "$$$"),
    chain_of_thought=True,
    legacy="meditron",
)
_SC_COT = dataclasses.replace(_COT, branches=5, temperature=0.8)

PROTOCOLS: dict[str, Protocol] = {
    "lm_eval": Protocol("lm_eval"),
    "lm_eval_continuation": Protocol("lm_eval_continuation"),
    "option_texts": Protocol("lm_eval_continuation", per_byte=True),
    "meditron": Protocol("meditron", "letter", shots=3, runs=(1234, 432, 32)),
    "meditron_zero_shot": Protocol("meditron", "letter"),
    "meditron_cot": _COT,
    "meditron_sc_cot": _SC_COT,
    "meditron_chat": Protocol("meditron_chat", "letter"),
    "meditron_chat_cot": dataclasses.replace(_COT, form="meditron_chat_cot"),
    "meditron_chat_sc_cot": dataclasses.replace(_SC_COT, form="meditron_chat_cot"),
    "mmedbench": Protocol("mmedbench", "generation", max_new_tokens=1000, legacy="mmedbench"),
    "mmedbench_rationale": Protocol(
        "mmedbench_rationale",
        "generation",
        max_new_tokens=1000,
        chain_of_thought=True,
        legacy="mmedbench",
    ),
    "biomistral": Protocol("biomistral", "letter", shots=3, runs=(1, 2, 3)),
    "biomistral_zero_shot": Protocol("biomistral", "letter"),
}


def protocol(
    name: str,
    *,
    shots: int | None = None,
    runs: tuple[int, ...] | None = None,
    branches: int | None = None,
    max_new_tokens: int | None = None,
) -> Protocol:
    """Return a protocol, with the settings that are not None in place of its own.

    Raises:
        UsageError: there is no such protocol, or a setting does not belong to it.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; {did_you_mean(name, PROTOCOLS)}")
    found = PROTOCOLS[name]
    for option, value in (("--branches", branches), ("--max-new-tokens", max_new_tokens)):
        if value is not None and found.scoring != "generation":
            raise UsageError(f"{option} is for protocols that generate; {name} does not")
    if shots is not None and shots < 0:
        raise UsageError("--shots must be at least 0")
    if shots and found.form.startswith("mmedbench"):
        raise UsageError(f"--shots: the form of {name} has no place for demonstrations")
    if branches is not None and not found.temperature:
        raise UsageError(
            f"--branches: {name} takes the likeliest token, so that all branches would be the same;"
            " use meditron_sc_cot"
        )
    changes: dict[str, Any] = {
        "shots": shots,
        "runs": runs,
        "branches": branches,
        "max_new_tokens": max_new_tokens,
    }
    found = dataclasses.replace(
        found, **{key: value for key, value in changes.items() if value is not None}
    )
    if not found.shots and len(found.runs) > 1:
        # without demonstrations all runs would be the same
        found = dataclasses.replace(found, runs=found.runs[:1])
    return found
