"""Gemma 3 text models (MedGemma 27B text), and the text part of the multimodal ones (MedGemma).

A layer has norms before and after attention and MLP, and norms on query and key heads. Five of six
layers have a sliding window and a rotary base of their own.
"""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, layer_types, llama
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import DirectMapping
from checkpoints_convert.families.multimodal import text_tensor
from megatron_ext.config.architecture import Architecture

_ROTARY_BASE = 1_000_000.0
_LOCAL_ROTARY_BASE = 10_000.0
_PERIOD = 6
"""By default every sixth layer has no window."""
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
"""Of transformers; the text configuration of a multimodal folder has only what differs."""
_COMMON = (
    *("bos_token_id", "eos_token_id", "pad_token_id"),
    *("dtype", "torch_dtype", "transformers_version"),
)
"""Fields of a multimodal config.json that hold for its text model, above those of text_config."""


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Gemma 3 text config.json."""
    fields = hf_config.Fields(_DEFAULTS | config)
    fields.require(
        attention_bias=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        use_bidirectional_attention=None,
    )
    fields.pop("cache_implementation", None)
    period = fields.pop_positive("sliding_window_pattern", None) or _PERIOD
    types = fields.pop("layer_types", None)
    if types is None:
        types = layer_types.every_nth_full(fields.pop_positive("num_hidden_layers"), period)
    rope = _rope(fields)
    windows = layer_types.window_fields(
        types, fields.pop_positive("sliding_window"), rope.local_base
    )
    scalar = fields.pop_positive("query_pre_attn_scalar")
    return hf_config.architecture(
        fields,
        "gemma3_text",
        activation_field="hidden_activation",
        rope=rope.full,
        linear_scaling=True,
        activation="gelu_pytorch_tanh",
        qk_layernorm=True,
        norm_placement="both",
        layernorm_zero_centered_gamma=True,
        scale_embeddings=True,
        softmax_scale=None if scalar == fields.pop("head_dim") else scalar**-0.5,
        **windows,
    )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Gemma 3 text config.json.

    The rotary fields are those of transformers 4, which ignores `rope_parameters`; 5 reads both.
    """
    types = layer_types.from_architecture(architecture)
    own: dict[str, Any] = {}
    if types == layer_types.every_nth_full(architecture.num_layers, _PERIOD):
        own["sliding_window_pattern"] = _PERIOD
    fields = hf_config.config(
        architecture,
        "gemma3_text",
        ["Gemma3ForCausalLM"],
        hidden_activation=architecture.activation,
        attention_bias=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        sliding_window=layer_types.written_window(architecture),
        layer_types=types,
        rope_local_base_freq=architecture.local_rotary_base or architecture.rotary_base,
        query_pre_attn_scalar=_scalar(architecture),
        **own,
    )
    del fields["hidden_act"]
    return fields


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config.json of the text model in a multimodal Gemma 3 folder.

    Raises:
        ValueError: a field is unknown, or there is no text configuration.
    """
    fields = hf_config.Fields(config)
    text = fields.pop("text_config", None)
    if not isinstance(text, dict):
        raise ValueError(f"text_config = {text!r} is no object")
    for name in ("vision_config", "mm_tokens_per_image"):
        fields.pop(name, None)
    for name in ("boi", "eoi", "image"):
        fields.pop(f"{name}_token_index", None)
        fields.pop(f"{name}_token_id", None)
    # that of the text configuration has no effect in transformers
    tied = fields.pop("tie_word_embeddings", True)
    fields.reject_unknown()
    return {
        **_DEFAULTS,
        **text,
        **{name: config[name] for name in _COMMON if name in config},
        "tie_word_embeddings": tied,
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
    }


def _rope(fields: hf_config.Fields) -> layer_types.LayerRope:
    """Return the rotary positions.

    transformers 5 writes `rope_parameters` by type of layer, earlier ones three other fields.
    """
    by_type = fields.pop("rope_parameters", None) or {}
    scaling = fields.pop("rope_scaling", None) or {}
    base = fields.pop("rope_theta", _ROTARY_BASE)
    local_base = fields.pop("rope_local_base_freq", _LOCAL_ROTARY_BASE)
    if not isinstance(by_type, dict) or not isinstance(scaling, dict):
        raise ValueError(
            f"rope_parameters = {by_type!r}, rope_scaling = {scaling!r}: neither an object nor null"
        )
    full = {"rope_theta": base, **(by_type.get(layer_types.FULL) or {}), **scaling}
    local = {"rope_theta": local_base, **(by_type.get(layer_types.SLIDING) or {})}
    rope = layer_types.read_rope(
        by_type | {layer_types.FULL: full, layer_types.SLIDING: local}, base
    )
    if rope.local_base is None and rope.full["rope_type"] != "default":
        raise ValueError(
            f"rope_parameters: {layer_types.SLIDING} = {local!r} is not supported (only rope_theta)"
        )
    return rope


def _scalar(architecture: Architecture) -> int:
    """Return `query_pre_attn_scalar`, of which the scores' factor is the inverse square root."""
    if architecture.softmax_scale is None:
        return architecture.kv_channels
    return round(architecture.softmax_scale**-2)


_BEFORE_MLP = DirectMapping(
    "decoder.layers.mlp.linear_fc1.layer_norm_weight",
    ("model.layers.{layer}.pre_feedforward_layernorm.weight",),
)
TEXT = Family(
    name="gemma3_text",
    architecture=architecture,
    config=config,
    shared=llama.SHARED,
    output=llama.OUTPUT,
    layer=(
        llama.NORMS_BEFORE[0],
        *llama.ATTENTION,
        *llama.QK_NORM,
        llama.NORMS_AFTER[0],
        _BEFORE_MLP,
        *llama.GATED_MLP,
        llama.NORMS_AFTER[1],
    ),
)
TEXT_OF_MULTIMODAL = dataclasses.replace(TEXT, text_config=text_config, text_tensor=text_tensor)
