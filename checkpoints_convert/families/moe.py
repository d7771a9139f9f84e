"""Mixtures of experts: the config.json fields and the tensors that their families share.

A layer's MLP is a router and experts. On the hub, each expert's matrices are tensors of their own;
transformers 5 may also save them stacked (`stacked_experts`).
"""

from collections.abc import Sequence
from typing import Any

from checkpoints_convert.families import hf_config
from checkpoints_convert.families.mappings import (
    DirectMapping,
    GatedMLPMapping,
    ParamMapping,
)
from checkpoints_convert.families.stacked_experts import StackedExperts
from megatron_ext.config.architecture import Architecture

_LAYER = "model.layers.{layer}."


def router_fields(fields: hf_config.Fields, *, num_experts: str, topk: int) -> dict[str, Any]:
    """Return the fields of Architecture for the router.

    The coefficient of the balancing loss and `output_router_logits` do not change the logits; an
    export keeps them, and a training recipe sets its own.

    Args:
        fields: the configuration.
        num_experts: name of the field that counts the experts.
        topk: default of `num_experts_per_tok`.
    """
    fields.pop("router_aux_loss_coef", None)
    fields.pop("output_router_logits", None)
    return {
        "num_moe_experts": fields.pop_positive(num_experts),
        "moe_router_topk": fields.pop_positive("num_experts_per_tok", topk),
    }


def require_experts_in_all_layers(fields: hf_config.Fields) -> None:
    """Refuse a model in which some layers have a dense MLP.

    Raises:
        ValueError: it has; names the field.
    """
    fields.require(decoder_sparse_step=1)
    if dense := fields.pop("mlp_only_layers", None):
        raise ValueError(f"mlp_only_layers = {dense!r} is not supported (all layers need experts)")


def normalized(architecture: Architecture) -> bool:
    """Return `norm_topk_prob`: whether the weights of a token's experts sum to 1."""
    return not architecture.moe_router_pre_softmax


def router_config(architecture: Architecture, num_experts: str) -> dict[str, Any]:
    """Return the fields of a config.json for the router; the balancing loss stays the default."""
    return {
        num_experts: architecture.num_moe_experts,
        "num_experts_per_tok": architecture.moe_router_topk,
        "output_router_logits": False,
    }


def layer(
    mlp: str, *, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> tuple[ParamMapping, ...]:
    """Return the mappings of the norm before the MLP, of the router and of the experts.

    Args:
        mlp: name of the MLP in a layer.
        gate: name of an expert's gate.
        up: name of its up projection.
        down: name of its down projection.
    """
    expert = f"{_LAYER}{mlp}.experts.{{expert}}"
    return (
        DirectMapping(
            "decoder.layers.pre_mlp_layernorm.weight", (f"{_LAYER}post_attention_layernorm.weight",)
        ),
        DirectMapping("decoder.layers.mlp.router.weight", (f"{_LAYER}{mlp}.gate.weight",)),
        GatedMLPMapping(
            "decoder.layers.mlp.experts.experts.linear_fc1.weight",
            (f"{expert}.{gate}.weight", f"{expert}.{up}.weight"),
        ),
        DirectMapping(
            "decoder.layers.mlp.experts.experts.linear_fc2.weight", (f"{expert}.{down}.weight",)
        ),
    )


SHARED_EXPERT: tuple[ParamMapping, ...] = (
    GatedMLPMapping(
        "decoder.layers.mlp.shared_experts.linear_fc1.weight",
        (
            f"{_LAYER}mlp.shared_expert.gate_proj.weight",
            f"{_LAYER}mlp.shared_expert.up_proj.weight",
        ),
    ),
    DirectMapping(
        "decoder.layers.mlp.shared_experts.linear_fc2.weight",
        (f"{_LAYER}mlp.shared_expert.down_proj.weight",),
    ),
    DirectMapping(
        "decoder.layers.mlp.shared_experts.gate_weight",
        (f"{_LAYER}mlp.shared_expert_gate.weight",),
    ),
)


def stacked(layer: Sequence[ParamMapping]) -> tuple[StackedExperts, ...]:
    """Return the tensors that transformers 5 saves with `save_original_format=False`.

    They have the same names in all families.

    Args:
        layer: the mappings of `layer()`.
    """
    names = {mapping.megatron: mapping.hf for mapping in layer}
    return (
        StackedExperts(
            f"{_LAYER}mlp.experts.gate_up_proj",
            names["decoder.layers.mlp.experts.experts.linear_fc1.weight"],
        ),
        StackedExperts(
            f"{_LAYER}mlp.experts.down_proj",
            names["decoder.layers.mlp.experts.experts.linear_fc2.weight"],
        ),
    )
