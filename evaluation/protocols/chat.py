"""Protocols for chat and reasoning models: Galen's own, under the model's generation settings."""

import dataclasses

from evaluation.protocols.protocol import Protocol

_CHAT = Protocol(
    "chat",
    "generation",
    temperature=None,
    top_p=None,
    top_k=None,
    repetition_penalty=None,
    max_new_tokens=256,
    chat_template="auto",
    fewshot_as_multiturn=True,
    enable_thinking=False,
    answer_format="letter",
)
_COT = dataclasses.replace(
    _CHAT,
    template="chat_cot",
    max_new_tokens=2048,
    model_max_new_tokens=True,
    chain_of_thought=True,
)

PROTOCOLS = {
    "chat": _CHAT,
    "chat_cot": _COT,
    "reasoning": dataclasses.replace(
        _COT,
        max_new_tokens=32768,
        enable_thinking=True,
        answer_format="boxed",
        template="chat_cot_boxed",
    ),
}
