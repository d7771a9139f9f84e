"""Apertus 8B and 70B (Swiss AI): xIELU with learned parameters, no gate, norms on query and key."""

import dataclasses
from typing import Any

from checkpoints_convert.families import hf_config, llama
from checkpoints_convert.families.mappings import ConstantMapping, DirectMapping, ParamMapping
from megatron_ext.config.architecture import Architecture


def architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of an Apertus config.json."""
    fields = hf_config.Fields({"rope_theta": 12e6, **config})  # transformers' default
    fields.require(attention_bias=False, mlp_bias=False, qk_norm=True, post_norm=False)
    if not config.get("rope_parameters") and not config.get("rope_scaling"):
        raise ValueError(
            "rope_scaling is missing: transformers 5 then computes Llama 3's scaling with a base"
            ' of 12,000,000, transformers 4 none; set it, or {"rope_type": "default"} for none'
        )
    return hf_config.architecture(
        fields, "apertus", activation="xielu", gated_mlp=False, qk_layernorm=True
    )


def config(architecture: Architecture) -> dict[str, Any]:
    """Return an Apertus config.json."""
    common = hf_config.config(architecture, "apertus", ["ApertusForCausalLM"], attention_bias=False)
    return {**common, "rope_scaling": common["rope_scaling"] or {"rope_type": "default"}}


def _in_layer(name: str) -> Any:
    return (f"model.layers.{{layer}}.{name}",)


_ACTIVATION = "decoder.layers.mlp.activation_func"
NORMS: tuple[ParamMapping, ...] = (
    DirectMapping(
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
        _in_layer("attention_layernorm.weight"),
    ),
    DirectMapping(
        "decoder.layers.mlp.linear_fc1.layer_norm_weight",
        _in_layer("feedforward_layernorm.weight"),
    ),
)
XIELU: tuple[ParamMapping, ...] = (
    DirectMapping(f"{_ACTIVATION}.alpha_p", _in_layer("mlp.act_fn.alpha_p")),
    DirectMapping(f"{_ACTIVATION}.alpha_n", _in_layer("mlp.act_fn.alpha_n")),
    ConstantMapping(f"{_ACTIVATION}.beta", _in_layer("mlp.act_fn.beta")),
    ConstantMapping(f"{_ACTIVATION}.eps", _in_layer("mlp.act_fn.eps")),
)

FAMILY = dataclasses.replace(
    llama.FAMILY,
    name="apertus",
    architecture=architecture,
    config=config,
    layer=(*NORMS, *llama.ATTENTION, *llama.QK_NORM, *llama.UNGATED_MLP, *XIELU),
)
