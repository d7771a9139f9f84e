"""Prompt forms: how a question is put to a model. Pure functions, used by `finetune/` too, so that training and test agree.

Protocols:
    lm_eval: lm-evaluation-harness' `medqa_4options` and `mmlu`: `Question: …`, `A. …`, `B. …`, `Answer:`, each on a line of its own;
        the continuations are ` A`, ` B`, …
    lm_eval_continuation: its `mmlu_continuation`: `Question: …`, `Answer:`; the continuations are the options' texts. A small model
        that cannot yet tell letters apart can answer in this form.

In both a context stands before the question, with a blank line between.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from evaluation.question import Question
from galen.errors import UsageError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as a model reads it."""

    text: str
    """All that stands before the answer."""
    continuations: dict[str, str]
    """For each option's letter, the text that would answer with it."""


def lm_eval(question: Question) -> Prompt:
    """Return lm-evaluation-harness' form (version 0.4, `tasks/medqa/preprocess_medqa.py`), without demonstrations."""
    options = "".join(f"{letter}. {text}\n" for letter, text in question.options.items())
    context = f"{question.context}\n\n" if question.context else ""
    text = f"{context}Question: {question.question}\n{options}Answer:"
    return Prompt(text, {letter: f" {letter}" for letter in question.options})


def lm_eval_continuation(question: Question) -> Prompt:
    """Return the form of lm-evaluation-harness' `mmlu_continuation`: the options are not listed, their texts are the continuations."""
    context = f"{question.context}\n\n" if question.context else ""
    text = f"{context}Question: {question.question}\nAnswer:"
    return Prompt(text, {letter: f" {option}" for letter, option in question.options.items()})


Form = Callable[[Question], Prompt]

PROTOCOLS: dict[str, Form] = {"lm_eval": lm_eval, "lm_eval_continuation": lm_eval_continuation}


def form(protocol: str) -> Form:
    """Return the prompt form of a protocol.

    Raises:
        UsageError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        nearest = difflib.get_close_matches(protocol, PROTOCOLS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(PROTOCOLS)}"
        raise UsageError(f"unknown protocol {protocol!r}; {hint}")
    return PROTOCOLS[protocol]
