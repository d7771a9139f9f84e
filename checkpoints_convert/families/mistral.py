"""Mistral v0.1 (sliding window) to Mistral Small 24B, Ministral 8B and Ministral 3."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama
from megatron_ext.config.architecture import Architecture

_BETA = "llama_4_scaling_beta"
_WINDOWED = "sliding_attention"
_FULL = "full_attention"


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Mistral config.json.

    The default window is 4,096, as in transformers.
    """
    fields = hf_config.Fields(config)
    window = fields.pop("sliding_window", 4096)
    return hf_config.architecture(fields, "mistral", num_query_groups=8, window_size=window)


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Mistral config.json."""
    return hf_config.config(
        architecture, "mistral", ["MistralForCausalLM"], sliding_window=architecture.window_size
    )


def ministral_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Ministral config.json: a Mistral with a window by layer."""
    fields = hf_config.Fields(config)
    window = fields.pop("sliding_window", 4096)
    layers = fields.pop_positive("num_hidden_layers")
    types = fields.pop("layer_types", None)
    windows: tuple[Any, ...] | None = None
    if types is not None:
        if not isinstance(types, list) or not {*types} <= {_WINDOWED, _FULL}:
            raise ValueError(
                f"layer_types = {types!r} is not supported (only {_WINDOWED!r} and {_FULL!r})"
            )
        windows = tuple(int(name == _WINDOWED) for name in types)
        if window is None and any(windows):
            raise ValueError(f"layer_types has {_WINDOWED!r}, sliding_window is null")
        if len(windows) != layers:
            raise ValueError(f"layer_types has {len(windows)} entries for {layers} layers")
        window = window if any(windows) else None
        windows = None if all(windows) or not any(windows) else windows
    return hf_config.architecture(
        fields,
        "ministral",
        num_query_groups=8,
        window_size=window,
        window_attn_skip_freq=windows,
    )


def ministral_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Ministral config.json."""
    everywhere = (int(architecture.window_size is not None),) * architecture.num_layers
    windows = architecture.window_attn_skip_freq or everywhere
    return hf_config.config(
        architecture,
        "ministral",
        ["MinistralForCausalLM"],
        sliding_window=architecture.window_size,
        layer_types=[_WINDOWED if windowed else _FULL for windowed in windows],
    )


def ministral3_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Ministral 3 config.json: a Mistral with YaRN.

    It scales queries beyond YaRN's original positions, which Megatron's model does not reach.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or rope.get(_BETA) is None:
        raise ValueError(f"rope_parameters = {rope!r} is not supported (only with {_BETA})")
    # `max_position_embeddings` repeats the field of this name
    others = {
        name: value
        for name, value in rope.items()
        if name not in (_BETA, "max_position_embeddings")
    }
    fields = hf_config.Fields({**config, "rope_parameters": others, "rope_scaling": None})
    return hf_config.architecture(
        fields,
        "ministral3",
        num_query_groups=8,
        kv_channels=128,
        window_size=fields.pop("sliding_window", None),
        llama_4_scaling_beta=rope[_BETA],
    )


def ministral3_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Ministral 3 config.json."""
    common = hf_config.config(
        architecture,
        "ministral3",
        ["Ministral3ForCausalLM"],
        sliding_window=architecture.window_size,
        # transformers' default is an id beyond a small vocabulary
        pad_token_id=None,
    )
    scaling = common["rope_scaling"] or {}
    return {**common, "rope_scaling": {**scaling, _BETA: architecture.llama_4_scaling_beta}}


FAMILY = dataclasses.replace(llama.FAMILY, name="mistral", architecture=architecture, config=config)
MINISTRAL = dataclasses.replace(
    llama.FAMILY,
    name="ministral",
    architecture=ministral_architecture,
    config=ministral_config,
)
MINISTRAL3 = dataclasses.replace(
    llama.FAMILY,
    name="ministral3",
    architecture=ministral3_architecture,
    config=ministral3_config,
)
