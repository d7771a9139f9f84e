"""Protocols of MMedBench (arXiv 2402.13963)."""

import dataclasses

from evaluation.protocols.protocol import Protocol

_DIRECT = Protocol("mmedbench", "generation", max_new_tokens=1000, strict_match="mmedbench")

PROTOCOLS = {
    "mmedbench": _DIRECT,
    "mmedbench_rationale": dataclasses.replace(
        _DIRECT, template="mmedbench_rationale", chain_of_thought=True
    ),
}
