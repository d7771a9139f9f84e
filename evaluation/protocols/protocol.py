"""A protocol: prompt template, answer extraction, and number of runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    temperature: float | None = 0.0
    """With `generation`: 0 is greedy decoding; None: the model's own."""
    top_p: float | None = 1.0
    """Only the most likely tokens that together have this probability; None: the model's own."""
    top_k: int | None = 0
    """Only so many of the most likely tokens; 0: all, None: the model's own."""
    repetition_penalty: float | None = 1.0
    """Penalty on the logits of tokens that have occurred; None: the model's own."""
    max_new_tokens: int = 0
    """With `generation`: maximum length of an answer in tokens."""
    model_max_new_tokens: bool = False
    """Whether `max_new_tokens` of the model's generation_config.json replaces the protocol's."""
    stop: tuple[str, ...] = ()
    """With `generation`: stop strings; the answer is truncated before the first."""
    chain_of_thought: bool = False
    """The answer follows an explanation, so few-shot examples need a rationale."""
    strict_match: Literal["", "meditron", "mmedbench"] = ""
    """Published code whose strict answer extraction is reported beside the flexible one."""
    chat_template: str = "none"
    """`auto`: the tokenizer's own, if it has one; `none`: plain text; or the path of a file."""
    system_prompt: str = ""
    """System message, before the task's description."""
    fewshot_as_multiturn: bool = False
    """Few-shot examples are turns of the conversation, not one message with the question."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the chat template."""
    enable_thinking: bool | None = None
    """The template's variable `enable_thinking`; None: its own default.

    Where answers are not generated it is always False.
    """
    thinking_markers: tuple[str, str] | None = None
    """Texts around the model's thinking; None: those of its family."""
    thinking_budget: int | None = None
    """Maximum tokens of thinking; `max_new_tokens` then counts those of the answer."""
    budget_forcing: bool = False
    """Thinking beyond its budget is closed, and the model asked for the answer."""
    answer_format: Literal["", "letter", "json", "boxed"] = ""
    """How the prompt asks for the answer; "" for templates with a format of their own."""
    guided_decoding: bool = False
    """Whether the backend forces the JSON of `answer_format`."""
