"""Qwen2, Qwen2.5 (biases on query, key, value) and Qwen3 (RMSNorm on each query and key head)."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama
from megatron_ext.config.architecture import Architecture


def qwen2_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Qwen2 or Qwen2.5 config.json."""
    fields = hf_config.Fields(config)
    return hf_config.architecture(
        fields, "qwen2", add_qkv_bias=True, num_query_groups=32, window_size=_window(fields)
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
        window_size=_window(fields),
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


def _window(fields: hf_config.Fields) -> int | None:
    """Return the sliding window.

    Megatron's model has it in all layers or in none, Qwen's from `max_window_layers` on.
    """
    used = fields.pop("use_sliding_window", False)
    window = fields.pop("sliding_window", None)
    full = fields.pop("max_window_layers", 28)
    layer_types = fields.pop("layer_types", None)
    if not used or window is None:
        if layer_types and set(layer_types) != {"full_attention"}:
            raise ValueError(
                f"layer_types = {sorted(set(layer_types))!r} contradicts use_sliding_window ="
                f" {used!r}"
            )
        return None
    layers = fields.pop("num_hidden_layers")
    windowed = max(layers - full, 0)
    if layer_types:
        windowed = sum(layer_type == "sliding_attention" for layer_type in layer_types)
    if windowed not in (0, layers):
        raise ValueError(
            f"max_window_layers = {full!r} is not supported: {windowed} of {layers} layers"
            " have a window (only all or none)"
        )
    return window if windowed else None


def _window_fields(architecture: Architecture) -> dict[str, Any]:
    return {
        "use_sliding_window": architecture.window_size is not None,
        "sliding_window": architecture.window_size,
        "max_window_layers": 0 if architecture.window_size is not None else architecture.num_layers,
    }


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
