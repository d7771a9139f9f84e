"""A protocol: prompt template, answer extraction, and number of runs."""

from dataclasses import dataclass
from typing import Literal

LikelihoodMetric = Literal["acc", "acc_norm", "acc_bytes"]


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
    metric: LikelihoodMetric = "acc"
    """With `likelihood`: which continuation counts as the answer, as lm-evaluation-harness has it.

    `acc`: the likeliest. `acc_norm`: the likeliest per character, `acc_bytes` per UTF-8 byte; the
    delimiter before the answer does not count.
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
