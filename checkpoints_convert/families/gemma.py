"""Gemma 3 text models (MedGemma 27B text), and the text part of the multimodal ones (MedGemma).

A layer has norms before and after attention and MLP, and norms on query and key heads. Five of six
layers have a sliding window and a rotary base of their own.
"""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import DirectMapping
from megatron_ext.config.architecture import Architecture

_ROTARY_BASE = 1_000_000.0
_LOCAL_ROTARY_BASE = 10_000.0
_PATTERN = 6
"""By default one layer of six has no window: the last."""
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
_OF_TEXT = ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
_LOCAL = "sliding_attention"
_GLOBAL = "full_attention"


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
    local_layers = _local_layers(fields)
    window = fields.pop_positive("sliding_window")
    if window is None and any(local_layers):
        raise ValueError("sliding_window is null, but layers have sliding attention")
    rope, local_base = _rope(fields)
    scalar = fields.pop_positive("query_pre_attn_scalar")
    return hf_config.architecture(
        fields,
        "gemma3_text",
        activation_field="hidden_activation",
        rope=rope,
        linear_scaling=True,
        activation="gelu_pytorch_tanh",
        qk_layernorm=True,
        norm_placement="both",
        layernorm_zero_centered_gamma=True,
        scale_embeddings=True,
        softmax_scale=None if scalar == fields.pop("head_dim") else scalar**-0.5,
        **(_windows(window, local_layers, local_base) if any(local_layers) else {}),
    )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Gemma 3 text config.json.

    The fields are those of transformers before version 5, which also reads them.
    """
    local_layers = architecture.window_attn_skip_freq or (0,) * architecture.num_layers
    pattern = {"sliding_window_pattern": _PATTERN} if _is_default(local_layers) else {}
    fields = hf_config.config(
        architecture,
        "gemma3_text",
        ["Gemma3ForCausalLM"],
        hidden_activation=architecture.activation,
        attention_bias=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        sliding_window=architecture.window_size,
        layer_types=[_LOCAL if is_local else _GLOBAL for is_local in local_layers],
        rope_local_base_freq=architecture.local_rotary_base or _LOCAL_ROTARY_BASE,
        query_pre_attn_scalar=_scalar(architecture),
        **pattern,
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
    precision = ("dtype", "torch_dtype", "transformers_version")
    own = {name: config[name] for name in (*_OF_TEXT, *precision) if name in config}
    return {
        **_DEFAULTS,
        **{name: text[name] for name in text if name not in precision},
        **own,
        "tie_word_embeddings": tied,
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
    }


_TEXT_PREFIXES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.",
    "model.language_model.": "model.",
}
"""Names in multimodal folders: as saved by transformers up to 4.51 (and 5), and as in its model."""
_OTHER_PREFIXES = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)


def text_tensor(name: str) -> str | None:
    """Return the name that a tensor of a multimodal folder has in a text folder, None for none."""
    for prefix, replacement in _TEXT_PREFIXES.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return None if name.startswith(_OTHER_PREFIXES) else name


def _local_layers(fields: hf_config.Fields) -> tuple[int, ...]:
    """Return 1 for each layer with a sliding window, 0 for each without."""
    layers = fields.pop_positive("num_hidden_layers")
    pattern = fields.pop_positive("sliding_window_pattern", None) or _PATTERN
    types = fields.pop("layer_types", None)
    if types is None:
        return tuple(int((number + 1) % pattern > 0) for number in range(layers))
    if not isinstance(types, list) or len(types) != layers or not {*types} <= {_LOCAL, _GLOBAL}:
        raise ValueError(
            f"layer_types = {types!r} is not supported (only {_LOCAL!r} or {_GLOBAL!r} for each of"
            f" {layers} layers)"
        )
    return tuple(int(name == _LOCAL) for name in types)


def _is_default(local_layers: tuple[int, ...]) -> bool:
    return all(local == ((number + 1) % _PATTERN > 0) for number, local in enumerate(local_layers))


def _windows(window: int | None, local_layers: tuple[int, ...], base: float) -> dict[str, Any]:
    return {
        "window_size": window,
        "window_attn_skip_freq": local_layers,
        "local_rotary_base": base,
    }


def _rope(fields: hf_config.Fields) -> tuple[dict[str, Any], float]:
    """Return the rotary positions of layers without a window, and the base of those with one.

    transformers 5 writes `rope_parameters` by type of layer, earlier ones three other fields.
    """
    by_type = fields.pop("rope_parameters", None) or {}
    scaling = fields.pop("rope_scaling", None) or {}
    full = {"rope_theta": fields.pop("rope_theta", _ROTARY_BASE)}
    local = {"rope_theta": fields.pop("rope_local_base_freq", _LOCAL_ROTARY_BASE)}
    if not isinstance(by_type, dict) or not {*by_type} <= {_LOCAL, _GLOBAL}:
        raise ValueError(
            f"rope_parameters = {by_type!r} is not supported (only {_GLOBAL!r} and {_LOCAL!r})"
        )
    full |= (by_type.get(_GLOBAL) or {}) | scaling
    local |= by_type.get(_LOCAL) or {}
    if local.get("rope_type", "default") != "default" or {*local} - {"rope_theta", "rope_type"}:
        raise ValueError(
            f"rope_parameters = {local!r} of {_LOCAL} layers is not supported (only rope_theta)"
        )
    return full, float(local["rope_theta"])


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
