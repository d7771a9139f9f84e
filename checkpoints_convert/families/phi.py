"""Phi-4 and Phi-3 (`model_type: phi3`): Llama's function with fused projections.

`qkv_proj` holds all queries, then all keys, then all values; `gate_up_proj` the gate, then up.
"""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama
from checkpoints_convert.families.mappings import (
    FusedMapping,
    GatedMLPMapping,
    ParamMapping,
    QKVMapping,
)
from megatron_ext.config.architecture import Architecture

_DROPOUT = ("resid_pdrop", "embd_pdrop")
"""Applied in training only, whose recipe sets its own."""


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Phi-3 or Phi-4 config.json."""
    fields = hf_config.Fields(config)
    _refuse_longrope(config)
    fields.require(
        attention_bias=False,
        mlp_bias=False,
        lm_head_bias=False,
        partial_rotary_factor=1.0,
    )
    for name in (*_DROPOUT, "original_max_position_embeddings"):  # the latter is for longrope
        fields.pop(name, None)
    window = fields.pop("sliding_window", None)
    made = hf_config.architecture(fields, "phi3", window_size=window)
    if made.yarn is not None or made.rope_scaling_factor is not None:
        scaling = "llama3" if made.yarn is None else "yarn"
        raise ValueError(
            f"rotary scaling {scaling!r} is not supported (Phi's code knows 'longrope' only);"
            " export a model trained with it with --as-family llama"
        )
    return made


def _refuse_longrope(config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict):
        return
    rope_type = rope.get("rope_type") or rope.get("type")
    if "short_factor" in rope or rope_type in ("longrope", "su"):
        raise ValueError(
            f"rotary scaling {rope_type!r} (Phi-4-mini, Phi-3 128k) is not supported by Megatron"
            " Core; `galen finetune` trains such a model with transformers"
        )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Phi-4 config.json."""
    common = hf_config.config(
        architecture,
        "phi3",
        ["Phi3ForCausalLM"],
        sliding_window=architecture.window_size,
        # transformers' defaults are ids beyond a small vocabulary
        pad_token_id=None,
    )
    if architecture.kv_channels * architecture.num_attention_heads == architecture.hidden_size:
        del common["head_dim"]
    return common


def _in_layer(name: str) -> Any:
    return (f"model.layers.{{layer}}.{name}",)


_QKV = QKVMapping("decoder.layers.self_attention.linear_qkv.weight", ("query", "key", "value"))
_GATE_UP = GatedMLPMapping("decoder.layers.mlp.linear_fc1.weight", ("gate", "up"))
_FUSED: tuple[ParamMapping, ...] = (
    FusedMapping(_QKV, _in_layer("self_attn.qkv_proj.weight")),
    FusedMapping(_GATE_UP, _in_layer("mlp.gate_up_proj.weight")),
)
_SEPARATE = tuple(
    mapping for mapping in llama.LAYER if mapping.megatron not in (_QKV.megatron, _GATE_UP.megatron)
)

FAMILY = dataclasses.replace(
    llama.FAMILY,
    name="phi3",
    architecture=architecture,
    config=config,
    layer=(*_SEPARATE, *_FUSED),
)
