"""Qwen2, Qwen2.5 (biases on query, key, value) and Qwen3 (RMSNorm on each query and key head)."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, layer_types, llama
from megatron_ext.config.architecture import Architecture


def qwen2_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Qwen2 or Qwen2.5 config.json."""
    fields = hf_config.Fields(config)
    return hf_config.architecture(
        fields, "qwen2", add_qkv_bias=True, num_query_groups=32, **_windows(fields)
    )


def qwen3_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Qwen3 config.json."""
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False)
    return hf_config.architecture(
        fields,
        "qwen3",
        qk_layernorm=True,
        num_query_groups=32,
        kv_channels=128,
        **_windows(fields),
    )


def qwen2_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Qwen2 config.json."""
    return hf_config.config(
        architecture, "qwen2", ["Qwen2ForCausalLM"], **_window_fields(architecture)
    )


def qwen3_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Qwen3 config.json."""
    return hf_config.config(
        architecture,
        "qwen3",
        ["Qwen3ForCausalLM"],
        attention_bias=False,
        **_window_fields(architecture),
    )


def _windows(fields: hf_config.Fields) -> dict[str, Any]:
    """Return the fields of Architecture for the sliding window.

    The layers from `max_window_layers` on have it, unless `layer_types` says otherwise.
    """
    used = fields.pop_bool("use_sliding_window", False)
    window = fields.pop_positive("sliding_window", 4096)
    num_full = fields.pop("max_window_layers", 28)
    types = fields.pop("layer_types", None)
    if not used or window is None:
        if types and set(types) != {layer_types.FULL}:
            raise ValueError(
                f"layer_types = {sorted(set(types))!r} contradicts use_sliding_window = {used!r}"
            )
        return {}
    if types is None:
        layers = range(fields.pop_positive("num_hidden_layers"))
        types = [layer_types.SLIDING if n >= num_full else layer_types.FULL for n in layers]
    return layer_types.window_fields(types, window)


def _window_fields(architecture: Architecture) -> dict[str, Any]:
    """Return the fields of config.json for the sliding window."""
    types = layer_types.from_architecture(architecture)
    num_full = architecture.num_layers
    if layer_types.SLIDING in types:
        num_full = types.index(layer_types.SLIDING)
    fields: dict[str, Any] = {
        "use_sliding_window": architecture.window_size is not None,
        "sliding_window": architecture.window_size,
        "max_window_layers": num_full,
    }
    if layer_types.FULL in types[num_full:]:
        fields["layer_types"] = types
    return fields


QWEN2 = dataclasses.replace(
    llama.FAMILY,
    name="qwen2",
    architecture=qwen2_architecture,
    config=qwen2_config,
    layer=(*llama.LAYER, llama.QKV_BIAS),
)
QWEN3 = dataclasses.replace(
    llama.FAMILY,
    name="qwen3",
    architecture=qwen3_architecture,
    config=qwen3_config,
    layer=(*llama.LAYER, *llama.QK_NORM),
)
