"""Qwen1.5-MoE and Qwen2-MoE (a gated shared expert), and Qwen3-MoE."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama, moe
from megatron_ext.config.architecture import Architecture


def qwen2_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Qwen2-MoE config.json."""
    fields = hf_config.Fields(config)
    fields.require(qkv_bias=True)
    moe.require_experts_in_all_layers(fields)
    _refuse_window(fields)
    fields.pop("max_window_layers", None)
    return hf_config.architecture(
        fields,
        "qwen2_moe",
        num_query_groups=16,
        add_qkv_bias=True,
        moe_ffn_hidden_size=fields.pop_positive("moe_intermediate_size", 1408),
        moe_router_pre_softmax=not fields.pop_bool("norm_topk_prob", False),
        moe_shared_expert_intermediate_size=fields.pop_positive(
            "shared_expert_intermediate_size", 5632
        ),
        moe_shared_expert_gate=True,
        **moe.router_fields(fields, num_experts="num_experts", topk=4),
    )


def qwen3_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Qwen3-MoE config.json.

    Unlike Qwen3's, its layers have the window all or none, whatever `max_window_layers` is.
    """
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False)
    # of Qwen3-Coder and the models of July 2025; transformers knows no others
    fields.require(qkv_bias=False, use_qk_norm=True, shared_expert_intermediate_size=0)
    moe.require_experts_in_all_layers(fields)
    fields.pop("max_window_layers", None)
    window = fields.pop_positive("sliding_window", 4096)
    return hf_config.architecture(
        fields,
        "qwen3_moe",
        qk_layernorm=True,
        num_query_groups=4,
        window_size=window if fields.pop_bool("use_sliding_window", False) else None,
        moe_ffn_hidden_size=fields.pop_positive("moe_intermediate_size", 768),
        moe_router_pre_softmax=not fields.pop_bool("norm_topk_prob", False),
        **moe.router_fields(fields, num_experts=_num_experts_field(fields), topk=8),
    )


def qwen2_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Qwen2-MoE config.json."""
    return hf_config.config(
        architecture,
        "qwen2_moe",
        ["Qwen2MoeForCausalLM"],
        qkv_bias=True,
        use_sliding_window=False,
        sliding_window=None,
        max_window_layers=architecture.num_layers,
        shared_expert_intermediate_size=architecture.moe_shared_expert_intermediate_size,
        **_experts_config(architecture),
    )


def qwen3_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Qwen3-MoE config.json."""
    return hf_config.config(
        architecture,
        "qwen3_moe",
        ["Qwen3MoeForCausalLM"],
        attention_bias=False,
        use_sliding_window=architecture.window_size is not None,
        sliding_window=architecture.window_size,
        max_window_layers=architecture.num_layers,
        **_experts_config(architecture),
    )


def _experts_config(architecture: Architecture) -> dict[str, Any]:
    return {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": architecture.moe_ffn_hidden_size,
        "norm_topk_prob": moe.normalized(architecture),
        **moe.router_config(architecture, "num_experts"),
    }


def _num_experts_field(fields: hf_config.Fields) -> str:
    """Return the field that counts Qwen3's experts, which transformers 5 renames when it saves.

    Raises:
        ValueError: both names exist and differ.
    """
    names = [name for name in ("num_experts", "num_local_experts") if name in fields.config]
    counts = {fields.pop(name) for name in names}
    if len(counts) > 1:
        raise ValueError(
            f"num_experts = {fields.config['num_experts']!r} contradicts num_local_experts ="
            f" {fields.config['num_local_experts']!r}"
        )
    return names[0] if names else "num_experts"


def _refuse_window(fields: hf_config.Fields) -> None:
    """Refuse a sliding window, which transformers gives to every other layer of Qwen2-MoE."""
    fields.require(use_sliding_window=False)
    fields.pop("sliding_window", None)
    layer_types = fields.pop("layer_types", None)
    if layer_types and set(layer_types) != {"full_attention"}:
        raise ValueError(
            f"layer_types = {sorted(set(layer_types))!r} is not supported (only 'full_attention')"
        )


_EXPERTS = moe.layer("mlp")
QWEN2 = dataclasses.replace(
    llama.FAMILY,
    name="qwen2_moe",
    architecture=qwen2_architecture,
    config=qwen2_config,
    layer=(
        llama.NORMS_BEFORE[0],
        *llama.ATTENTION,
        llama.QKV_BIAS,
        *_EXPERTS,
        *moe.SHARED_EXPERT,
    ),
    stacked=moe.stacked(_EXPERTS),
)
QWEN3 = dataclasses.replace(
    llama.FAMILY,
    name="qwen3_moe",
    architecture=qwen3_architecture,
    config=qwen3_config,
    layer=(llama.NORMS_BEFORE[0], *llama.ATTENTION, *llama.QK_NORM, *_EXPERTS),
    stacked=moe.stacked(_EXPERTS),
)
