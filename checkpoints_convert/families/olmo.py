"""OLMo 2 (norms after attention and MLP, RMSNorm over all queries and keys) and OLMo 3.

OLMo 3 has a sliding window in three of four layers, whose rotary positions have no scaling.
"""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, layer_types, llama
from megatron_ext.config.architecture import Architecture

_OLMO3_BASE = 500_000.0
"""Rotary base of OLMo 3 in transformers 5 where config.json has none."""


def olmo2_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of an OLMo 2 config.json."""
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False)
    return hf_config.architecture(fields, "olmo2", **_PROPERTIES)


def olmo3_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of an OLMo 3 config.json."""
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False)
    types = fields.pop("layer_types", None)
    if types is None:
        types = layer_types.every_nth_full(fields.pop_positive("num_hidden_layers"), 4)
    window = fields.pop_positive("sliding_window", 4096)
    parameters = fields.pop("rope_parameters", None)
    if parameters is None:
        rope = _older_rope(fields)
    else:
        rope = layer_types.read_rope(parameters, _OLMO3_BASE)
    windows = layer_types.window_fields(types, window, rope.local_base)
    return hf_config.architecture(fields, "olmo3", rope=rope.full, **windows, **_PROPERTIES)


def olmo2_config(architecture: Architecture) -> dict[str, Any]:
    """Return an OLMo 2 config.json."""
    return hf_config.config(architecture, "olmo2", ["Olmo2ForCausalLM"], attention_bias=False)


def olmo3_config(architecture: Architecture) -> dict[str, Any]:
    """Return an OLMo 3 config.json."""
    config = hf_config.config(
        architecture,
        "olmo3",
        ["Olmo3ForCausalLM"],
        attention_bias=False,
        sliding_window=layer_types.written_window(architecture),
        layer_types=layer_types.from_architecture(architecture),
    )
    return layer_types.with_layer_rope(config, architecture)


def _older_rope(fields: hf_config.Fields) -> layer_types.LayerRope:
    """Return the rotary positions of a config.json of transformers 4.

    Its scaling is that of the layers without a window. transformers 4 uses `rope_theta` in all
    layers, transformers 5.24 the default in those with a window.
    """
    base = float(fields.pop("rope_theta", _OLMO3_BASE))
    scaling = fields.pop("rope_scaling", None)
    if base != _OLMO3_BASE:
        raise ValueError(
            f"rope_theta = {base!r} is ambiguous: versions of transformers differ in its layers;"
            " write rope_parameters with full_attention and sliding_attention"
        )
    if not isinstance(scaling, dict | None):
        raise ValueError(f"rope_scaling = {scaling!r}: neither an object nor null")
    return layer_types.read_rope({layer_types.FULL: scaling or {}}, base)


_PROPERTIES: dict[str, Any] = {"full_width_qk_norm": True, "norm_placement": "after"}
OLMO2 = dataclasses.replace(
    llama.FAMILY,
    name="olmo2",
    architecture=olmo2_architecture,
    config=olmo2_config,
    layer=(*llama.NORMS_AFTER, *llama.ATTENTION, *llama.QK_NORM, *llama.GATED_MLP),
)
OLMO3 = dataclasses.replace(
    OLMO2, name="olmo3", architecture=olmo3_architecture, config=olmo3_config
)
