"""Mistral v0.1 (sliding window) to Mistral Small 24B, Ministral 8B and Ministral 3."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, layer_types, llama
from checkpoints_convert.families.multimodal import text_tensor
from megatron_ext.config.architecture import Architecture

_BETA = "llama_4_scaling_beta"
_OF_IMAGES = (
    "image_token_id",
    "image_token_index",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "vision_config",
    "vision_feature_layer",
)
_COMMON = ("dtype", "torch_dtype", "transformers_version")


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Mistral config.json.

    The default window is 4,096, as in transformers.
    """
    fields = hf_config.Fields(config)
    window = fields.pop_positive("sliding_window", 4096)
    return hf_config.architecture(fields, "mistral", num_query_groups=8, window_size=window)


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Mistral config.json."""
    return hf_config.config(
        architecture, "mistral", ["MistralForCausalLM"], sliding_window=architecture.window_size
    )


def ministral_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Ministral config.json: a Mistral with a window by layer."""
    fields = hf_config.Fields(config)
    window = fields.pop_positive("sliding_window", 4096)
    types = fields.pop("layer_types", None)
    windows = layer_types.window_fields(types, window)
    return hf_config.architecture(fields, "ministral", num_query_groups=8, **windows)


def ministral_config(architecture: Architecture) -> dict[str, Any]:
    """Return a Ministral config.json."""
    return hf_config.config(
        architecture,
        "ministral",
        ["MinistralForCausalLM"],
        sliding_window=layer_types.written_window(architecture),
        layer_types=layer_types.from_architecture(architecture),
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
        window_size=fields.pop_positive("sliding_window", None),
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


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config.json of the text model in a folder of Mistral Small 3.1 or Ministral 3.

    Raises:
        ValueError: a field is unknown, or the text model is not supported.
    """
    fields = hf_config.Fields(config)
    if config.get("quantization_config") is not None:
        raise ValueError(
            "quantization_config: FP8 weights are not supported; take the model's folder in bf16"
            " (its name ends in -BF16 or -Base-2512)"
        )
    text = fields.pop("text_config", None)
    name = text.get("model_type", FAMILY.name) if isinstance(text, dict) else None
    if name not in (FAMILY.name, MINISTRAL3.name):
        raise ValueError(
            f"text_config = {text!r} is not supported (only model_type {FAMILY.name!r} and"
            f" {MINISTRAL3.name!r})"
        )
    for field in _OF_IMAGES:
        fields.pop(field, None)
    # transformers 4 reads it in the text configuration, 5 beside that
    tied = fields.pop("tie_word_embeddings", text.get("tie_word_embeddings", False))
    fields.reject_unknown()
    architectures = ["MistralForCausalLM" if name == "mistral" else "Ministral3ForCausalLM"]
    return {
        **text,
        **{name: config[name] for name in _COMMON if name in config},
        "tie_word_embeddings": tied,
        "model_type": name,
        "architectures": architectures,
    }


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
MULTIMODAL = dataclasses.replace(FAMILY, text_config=text_config, text_tensor=text_tensor)
"""Of `model_type: mistral3`, whose text model is a Mistral or a Ministral 3."""
