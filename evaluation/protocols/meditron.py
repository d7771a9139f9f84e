"""Protocols of MEDITRON (arXiv 2311.16079), of its base and of its fine-tuned (`chat`) models."""

import dataclasses

from evaluation.protocols.protocol import Protocol

_COT = Protocol(
    "meditron_cot",
    "generation",
    max_new_tokens=1024,
    stop=("###", "$$$"),
    chain_of_thought=True,
    strict_match="meditron",
)
_SC_COT = dataclasses.replace(_COT, num_samples=5, temperature=0.8)

PROTOCOLS = {
    "meditron": Protocol("meditron", "letter", num_fewshot=3, fewshot_seeds=(1234, 432, 32)),
    "meditron_zero_shot": Protocol("meditron", "letter"),
    "meditron_cot": _COT,
    "meditron_sc_cot": _SC_COT,
    "meditron_chat": Protocol("meditron_chat", "letter"),
    "meditron_chat_cot": dataclasses.replace(_COT, template="meditron_chat_cot"),
    "meditron_chat_sc_cot": dataclasses.replace(_SC_COT, template="meditron_chat_cot"),
}
