"""OLMoE: small experts without normalized weights, one RMSNorm over all query (key) heads."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama, moe
from megatron_ext.config.architecture import Architecture


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of an OLMoE config.json; `intermediate_size` is an expert's."""
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False, clip_qkv=None)
    return hf_config.architecture(
        fields,
        "olmoe",
        full_width_qk_norm=True,
        moe_ffn_hidden_size=fields.pop_positive("intermediate_size"),
        moe_router_pre_softmax=not fields.pop_bool("norm_topk_prob", False),
        **moe.router_fields(fields, num_experts="num_experts", topk=8),
    )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return an OLMoE config.json."""
    return hf_config.config(
        architecture,
        "olmoe",
        ["OlmoeForCausalLM"],
        attention_bias=False,
        clip_qkv=None,
        norm_topk_prob=moe.normalized(architecture),
        **moe.router_config(architecture, "num_experts"),
    )


_EXPERTS = moe.layer("mlp")
FAMILY = dataclasses.replace(
    llama.FAMILY,
    name="olmoe",
    architecture=architecture,
    config=config,
    layer=(llama.NORMS_BEFORE[0], *llama.ATTENTION, *llama.QK_NORM, *_EXPERTS),
    stacked=moe.stacked(_EXPERTS),
)
