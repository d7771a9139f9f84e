"""Phi-4, Phi-4-mini and Phi-3 (`model_type: phi3`): Llama's function with fused projections.

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
from megatron_ext.config.rope import LongRope

_DROPOUT = ("resid_pdrop", "embd_pdrop")
"""Applied in training only, whose recipe sets its own."""
_LONGROPE = ("longrope", "su", "yarn")
"""Names of LongRoPE in config.json; transformers reads all as the first."""

_ORIGINAL_POSITIONS = 4096
"""Positions before LongRoPE where config.json has none beside its scaling."""


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Phi-3 or Phi-4 config.json."""
    fields = hf_config.Fields(config)
    fields.require(
        attention_bias=False,
        mlp_bias=False,
        lm_head_bias=False,
        full_attn_mod=1,
        interpolate_factor=1,
    )
    for name in _DROPOUT:
        fields.pop(name, None)
    rope = hf_config.rope_parameters(fields)
    rotary_percent = fields.pop("partial_rotary_factor", 1.0)
    rotary_percent = rope.pop("partial_rotary_factor", rotary_percent)
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    longrope = None
    original = fields.pop_positive("original_max_position_embeddings", None)
    if rope_type in _LONGROPE:
        original = original or _original_positions(rope)
        longrope = _longrope(rope, original, fields.pop_positive("max_position_embeddings"))
        rope = {"rope_theta": rope["rope_theta"]}
    elif rope_type != "default":
        raise ValueError(
            f"rotary scaling {rope_type!r} is not supported (Phi's code knows 'longrope' only);"
            " export a model trained with it with --as-family llama"
        )
    return hf_config.architecture(
        fields,
        "phi3",
        rope=rope,
        rotary_percent=rotary_percent,
        longrope=longrope,
        window_size=fields.pop_positive("sliding_window", None),
    )


def _original_positions(rope: dict[str, Any]) -> int:
    """Return transformers' default of the original positions, which ignores those of the scaling.

    Raises:
        ValueError: they differ.
    """
    in_scaling = rope.get("original_max_position_embeddings")
    if in_scaling not in (None, _ORIGINAL_POSITIONS):
        raise ValueError(
            f"original_max_position_embeddings = {in_scaling!r} in the rotary scaling has no effect"
            f" in transformers, whose default is {_ORIGINAL_POSITIONS}; set it beside"
            " max_position_embeddings"
        )
    return _ORIGINAL_POSITIONS


def _longrope(rope: dict[str, Any], original: int, positions: int) -> LongRope:
    """Return the rotary scaling of `rope_parameters`.

    Args:
        rope: the fields.
        original: positions before the scaling.
        positions: positions of the model.
    """
    known = {"rope_type", "type", "rope_theta", "original_max_position_embeddings"}
    known |= {"short_factor", "long_factor", "factor", "attention_factor"}
    if unknown := sorted(set(rope) - known):
        raise ValueError(f"rotary scaling {unknown[0]} = {rope[unknown[0]]!r} is not supported")
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        factor = rope.get("factor") or positions / original
        attention_factor = LongRope.default_attention_factor(factor, original)
    return LongRope(
        short_factor=tuple(rope["short_factor"]),
        long_factor=tuple(rope["long_factor"]),
        original_max_position_embeddings=original,
        attention_factor=attention_factor,
    )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Phi-4 config.json."""
    longrope = architecture.longrope
    own: dict[str, Any] = {}
    if longrope is not None:
        own["original_max_position_embeddings"] = longrope.original_max_position_embeddings
        own["rope_scaling"] = _rope_scaling(longrope, architecture.max_position_embeddings)
    if architecture.rotary_percent != 1.0:
        own["partial_rotary_factor"] = architecture.rotary_percent
    common = hf_config.config(
        architecture,
        "phi3",
        ["Phi3ForCausalLM"],
        sliding_window=architecture.window_size,
        # transformers' default is an id beyond a small vocabulary
        pad_token_id=None,
        **own,
    )
    if architecture.kv_channels * architecture.num_attention_heads == architecture.hidden_size:
        del common["head_dim"]
    return common


def _rope_scaling(longrope: LongRope, positions: int) -> dict[str, Any]:
    """Return the rotary scaling; transformers 4 refuses other fields than these three."""
    scaling: dict[str, Any] = {
        "type": "longrope",
        "short_factor": list(longrope.short_factor),
        "long_factor": list(longrope.long_factor),
    }
    original = longrope.original_max_position_embeddings
    default = LongRope.default_attention_factor(positions / original, original)
    if longrope.attention_factor != default:
        scaling["attention_factor"] = longrope.attention_factor
    return scaling


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
