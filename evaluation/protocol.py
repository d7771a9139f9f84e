"""Protocols: a prompt form, how the answer is taken from the model, and how often, as the published systems do it."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Literal

from evaluation import prompts
from evaluation.forms.form import Form
from galen.errors import UsageError


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a question becomes a prediction."""

    form: str
    """Name of the prompt form."""
    scoring: Literal["likelihood", "letter", "generation"] = "likelihood"
    """`likelihood`: the likeliest continuation. `letter`: the top token of the whole vocabulary, and beside it the likeliest of the
    options' tokens. `generation`: the text that the model writes, read by `evaluation.answer_reading`."""
    per_byte: bool = False
    """With `likelihood`: divide by the bytes of the continuation, without its leading space (lm-evaluation-harness' `acc_norm`)."""
    shots: int = 0
    """Demonstrations before the question, the same for every question of a run."""
    runs: tuple[int, ...] = (0,)
    """Seeds of the demonstrations, one run each; scores are means over runs. For BioMistral's files 1, 2, 3 are its frozen triples."""
    branches: int = 1
    """With `generation`: answers sampled for each question; the majority of the readable ones is the prediction."""
    temperature: float = 0.0
    """With `generation`: 0 takes the likeliest token."""
    max_new_tokens: int = 0
    """With `generation`: the longest answer in tokens."""
    stop: tuple[str, ...] = ()
    """With `generation`: strings that end the answer; they are cut off."""
    chain_of_thought: bool = False
    """Demonstrations need a rationale, and the answer is read from the end of the text."""
    legacy: Literal["", "meditron", "mmedbench"] = ""
    """Whose strict reading is reported beside the robust one."""

    def put(self) -> Form:
        """Return the prompt form."""
        return prompts.form(self.form)


_COT = {"scoring": "generation", "max_new_tokens": 1024, "stop": ("###", "$$$"), "chain_of_thought": True, "legacy": "meditron"}
_BRANCHES = {"branches": 5, "temperature": 0.8}

PROTOCOLS: dict[str, Protocol] = {
    "lm_eval": Protocol("lm_eval"),
    "lm_eval_continuation": Protocol("lm_eval_continuation"),
    "option_texts": Protocol("lm_eval_continuation", per_byte=True),
    "meditron": Protocol("meditron", "letter", shots=3, runs=(1234, 432, 32)),
    "meditron_zero_shot": Protocol("meditron", "letter"),
    "meditron_cot": Protocol("meditron_cot", **_COT),  # type: ignore[arg-type]
    "meditron_sc_cot": Protocol("meditron_cot", **_COT, **_BRANCHES),  # type: ignore[arg-type]
    "meditron_chat": Protocol("meditron_chat", "letter"),
    "meditron_chat_cot": Protocol("meditron_chat_cot", **_COT),  # type: ignore[arg-type]
    "meditron_chat_sc_cot": Protocol("meditron_chat_cot", **_COT, **_BRANCHES),  # type: ignore[arg-type]
    "mmedbench": Protocol("mmedbench", "generation", max_new_tokens=1000, legacy="mmedbench"),
    "mmedbench_rationale": Protocol("mmedbench_rationale", "generation", max_new_tokens=1000, chain_of_thought=True, legacy="mmedbench"),
    "biomistral": Protocol("biomistral", "letter", shots=3, runs=(1, 2, 3)),
    "biomistral_zero_shot": Protocol("biomistral", "letter"),
}


def protocol(name: str, **changes: object) -> Protocol:
    """Return a protocol, with the settings in `changes` that are not None in place of its own.

    Raises:
        UsageError: there is no such protocol, or a setting does not belong to it.
    """
    if name not in PROTOCOLS:
        nearest = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(PROTOCOLS)}"
        raise UsageError(f"unknown protocol {name!r}; {hint}")
    found = PROTOCOLS[name]
    changes = {key: value for key, value in changes.items() if value is not None}
    for key in ("branches", "max_new_tokens"):
        if key in changes and found.scoring != "generation":
            raise UsageError(f"--{key.replace('_', '-')} is for protocols that generate; {name} does not")
    if changes.get("shots", 0) < 0:  # type: ignore[operator]
        raise UsageError("--shots must be at least 0")
    if changes.get("shots") and found.form.startswith("mmedbench"):
        raise UsageError(f"--shots: the form of {name} has no place for demonstrations")
    if "branches" in changes and not found.temperature:
        raise UsageError(f"--branches: {name} takes the likeliest token, so that all branches would be the same; use meditron_sc_cot")
    found = dataclasses.replace(found, **changes)  # type: ignore[arg-type]
    if not found.shots and len(found.runs) > 1:
        found = dataclasses.replace(found, runs=found.runs[:1])  # without demonstrations all runs would be the same
    return found
