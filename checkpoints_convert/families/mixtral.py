"""Mixtral 8x7B and 8x22B: Mistral with experts, whose weights sum to 1 for each token."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama, moe
from megatron_ext.config.architecture import Architecture


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Mixtral config.json; `intermediate_size` is an expert's."""
    fields = hf_config.Fields({"rope_theta": 1e6, **config})  # transformers' default
    fields.require(router_jitter_noise=0.0)
    return hf_config.architecture(
        fields,
        "mixtral",
        num_query_groups=8,
        window_size=fields.pop_positive("sliding_window", None),
        moe_ffn_hidden_size=fields.pop_positive("intermediate_size"),
        **moe.router_fields(fields, num_experts="num_local_experts", topk=2),
    )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Mixtral config.json."""
    return hf_config.config(
        architecture,
        "mixtral",
        ["MixtralForCausalLM"],
        sliding_window=architecture.window_size,
        router_jitter_noise=0.0,
        **moe.router_config(architecture, "num_local_experts"),
    )


_EXPERTS = moe.layer("block_sparse_moe", gate="w1", up="w3", down="w2")
FAMILY = dataclasses.replace(
    llama.FAMILY,
    name="mixtral",
    architecture=architecture,
    config=config,
    layer=(llama.NORMS_BEFORE[0], *llama.ATTENTION, *_EXPERTS),
    stacked=moe.stacked(_EXPERTS),
    renamed=(
        (
            "model.layers.{layer}.mlp.gate.weight",
            "model.layers.{layer}.block_sparse_moe.gate.weight",
        ),
    ),
)
