"""Llama 2, 3, 3.1, 3.2, SmolLM2 and others of `model_type: llama`.

Mistral and Qwen share its tensor names.
"""

from typing import Any

from checkpoints_convert.families import hf_config
from checkpoints_convert.families.base import Family
from checkpoints_convert.families.mappings import (
    DirectMapping,
    GatedMLPMapping,
    ParamMapping,
    QKVMapping,
    VocabMapping,
)
from megatron_ext.config.architecture import Architecture


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a Llama config.json."""
    fields = hf_config.Fields(config)
    fields.require(attention_bias=False, mlp_bias=False)
    return hf_config.architecture(fields, "llama")


def config(architecture: Architecture) -> dict[str, Any]:
    """Return a Llama config.json."""
    return hf_config.config(
        architecture, "llama", ["LlamaForCausalLM"], attention_bias=False, mlp_bias=False
    )


def _in_layer(*names: str) -> Any:
    return tuple(f"model.layers.{{layer}}.{name}" for name in names)


SHARED: tuple[ParamMapping, ...] = (
    VocabMapping("embedding.word_embeddings.weight", ("model.embed_tokens.weight",)),
    DirectMapping("decoder.final_layernorm.weight", ("model.norm.weight",)),
)
OUTPUT = VocabMapping("output_layer.weight", ("lm_head.weight",))
NORMS_BEFORE = (
    DirectMapping(
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
        _in_layer("input_layernorm.weight"),
    ),
    DirectMapping(
        "decoder.layers.mlp.linear_fc1.layer_norm_weight",
        _in_layer("post_attention_layernorm.weight"),
    ),
)
"""Of attention, of the MLP."""
NORMS_AFTER = (
    DirectMapping(
        "decoder.layers.self_attention.linear_proj.post_layernorm.weight",
        _in_layer("post_attention_layernorm.weight"),
    ),
    DirectMapping(
        "decoder.layers.mlp.linear_fc2.post_layernorm.weight",
        _in_layer("post_feedforward_layernorm.weight"),
    ),
)
"""For `norm_placement="after"`."""
ATTENTION: tuple[ParamMapping, ...] = (
    QKVMapping(
        "decoder.layers.self_attention.linear_qkv.weight",
        _in_layer("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    ),
    DirectMapping(
        "decoder.layers.self_attention.linear_proj.weight", _in_layer("self_attn.o_proj.weight")
    ),
)
GATED_MLP: tuple[ParamMapping, ...] = (
    GatedMLPMapping(
        "decoder.layers.mlp.linear_fc1.weight",
        _in_layer("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    ),
    DirectMapping("decoder.layers.mlp.linear_fc2.weight", _in_layer("mlp.down_proj.weight")),
)
UNGATED_MLP: tuple[ParamMapping, ...] = (
    DirectMapping("decoder.layers.mlp.linear_fc1.weight", _in_layer("mlp.up_proj.weight")),
    DirectMapping("decoder.layers.mlp.linear_fc2.weight", _in_layer("mlp.down_proj.weight")),
)
"""For `gated_mlp=False`."""
LAYER: tuple[ParamMapping, ...] = (NORMS_BEFORE[0], *ATTENTION, NORMS_BEFORE[1], *GATED_MLP)
QKV_BIAS = QKVMapping(
    "decoder.layers.self_attention.linear_qkv.bias",
    _in_layer("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
)
QK_NORM: tuple[ParamMapping, ...] = (
    DirectMapping(
        "decoder.layers.self_attention.q_layernorm.weight", _in_layer("self_attn.q_norm.weight")
    ),
    DirectMapping(
        "decoder.layers.self_attention.k_layernorm.weight", _in_layer("self_attn.k_norm.weight")
    ),
)

FAMILY = Family(
    name="llama",
    architecture=architecture,
    config=config,
    shared=SHARED,
    output=OUTPUT,
    layer=LAYER,
)
