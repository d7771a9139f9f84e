"""Every format of another program declares each property of a model, or refuses it by name."""

import dataclasses
from typing import Any

import pytest
import torch

from checkpoints_convert.conversion import bridge_config, megatron_lm_args
from checkpoints_convert.conversion.interop_target import InteropTarget
from checkpoints_convert.interop import nemo_config
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import common_without_arguments
from megatron_ext.config.architecture import Architecture, properties
from megatron_ext.config.rope import LongRope, Yarn

LLAMA = Architecture(
    family="llama",
    num_layers=4,
    hidden_size=64,
    ffn_hidden_size=96,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=16,
    vocab_size=300,
    max_position_embeddings=512,
    rotary_base=10000.0,
    layernorm_epsilon=1e-5,
    share_embeddings_and_output_weights=False,
)
EXPERTS = {"num_moe_experts": 4, "moe_ffn_hidden_size": 32}
SHARED_EXPERT = EXPERTS | {"moe_shared_expert_intermediate_size": 48}
YARN = Yarn(factor=2.0, original_max_position_embeddings=256)
LONGROPE = LongRope(
    short_factor=(1.0,) * 8,
    long_factor=(2.0,) * 8,
    original_max_position_embeddings=256,
    attention_factor=1.1,
)
QUICK_GEGLU = {"activation": "quick_gelu"}
# by property: what a model needs beside it, and a value that is not its default
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "rope_scaling_factor": ({}, 8.0),
    "yarn": ({}, YARN),
    "llama_4_scaling_beta": ({"yarn": YARN}, 0.1),
    "seq_len_interpolation_factor": ({}, 8.0),
    "longrope": ({}, LONGROPE),
    "rotary_percent": ({}, 0.5),
    "add_qkv_bias": ({}, True),
    "qk_layernorm": ({}, True),
    "full_width_qk_norm": ({}, True),
    "window_size": ({}, 128),
    "window_attn_skip_freq": ({"window_size": 128}, (1, 0, 1, 0)),
    "local_rotary_base": ({"window_size": 128, "window_attn_skip_freq": (1, 0, 1, 0)}, 500.0),
    "activation": ({"gated_mlp": False}, "relu2"),
    "gated_mlp": ({"activation": "relu2"}, False),
    "norm_placement": ({}, "after"),
    "layernorm_zero_centered_gamma": ({}, True),
    "scale_embeddings": ({}, True),
    "softmax_scale": ({}, 0.5),
    "add_bias_linear": ({"add_qkv_bias": True}, True),
    "softmax_type": ({}, "learnable"),
    "glu_linear_offset": (QUICK_GEGLU, 1.0),
    "activation_func_clamp_value": (QUICK_GEGLU, 7.0),
    "num_moe_experts": ({"moe_ffn_hidden_size": 32}, 8),
    "moe_router_topk": (EXPERTS, 3),
    "moe_ffn_hidden_size": ({"num_moe_experts": 4}, 40),
    "moe_router_pre_softmax": (EXPERTS, True),
    "moe_shared_expert_intermediate_size": (EXPERTS, 48),
    "moe_shared_expert_gate": (SHARED_EXPERT, True),
}
NEED_EACH_OTHER = {"num_moe_experts", "moe_ffn_hidden_size", "activation", "gated_mlp"}


def nemo_arguments(architecture: Architecture) -> Any:
    """Return NeMo's arguments, as a Mistral's if only that family has the property."""
    family = "llama" if architecture.window_size is None else "mistral"
    return nemo_config.arguments(dataclasses.replace(architecture, family=family))


def megatron_lm_arguments(architecture: Architecture) -> dict[str, Any]:
    return vars(megatron_lm_args.common_state(architecture, 1, torch.bfloat16)["args"])


def bridge_model(architecture: Architecture) -> dict[str, Any]:
    return bridge_config.run_config(architecture, 1, torch.bfloat16)["model"]


FORMATS = {
    bridge_config.TARGET.name: (bridge_config.TARGET, bridge_model),
    megatron_lm_args.TARGET.name: (megatron_lm_args.TARGET, megatron_lm_arguments),
    nemo_config.TARGET.name: (nemo_config.TARGET, nemo_arguments),
}


def model(name: str) -> Architecture:
    """Return a model with a property."""
    needed, value = CHANGES[name]
    family = "mistral" if name == "window_size" else "llama"
    return dataclasses.replace(LLAMA, **needed, **{name: value}, family=family)


def test_every_property_is_tested():
    assert set(CHANGES) == set(properties()), "add the new property to CHANGES"
    for name, default in properties().items():
        assert getattr(model(name), name) != default


TARGETS = [target for target, _ in FORMATS.values()] + [bridge_config.GEMMA3_TARGET]


@pytest.mark.parametrize("target", TARGETS, ids=[*FORMATS, "Megatron-Bridge's Gemma 3"])
def test_a_property_is_declared_or_refused(target: InteropTarget):
    declared = set(target.supports)
    assert not declared & target.refuses
    assert declared | target.refuses == set(properties()), (
        f"{target.name}: derive the new property's fields, or add it to `refuses`"
    )
    for name in target.refuses:
        with pytest.raises(DataError, match=f"{target.name} cannot express .*{name} = "):
            target.check(model(name))


@pytest.mark.parametrize("name", FORMATS)
def test_a_declared_property_changes_what_is_written(name):
    target, arguments = FORMATS[name]
    for declared in target.supports:
        changed = model(declared)
        assert target.refusal(changed) is None
        without = dataclasses.replace(LLAMA, family=changed.family)
        needed, _ = CHANGES[declared]
        if declared not in NEED_EACH_OTHER:
            without = dataclasses.replace(without, **needed)
        assert arguments(changed) != arguments(without), declared


def test_mixture_of_experts_in_bridge_s_terms():
    """GPTModelProvider's fields, as Bridge's import of a Qwen3 mixture of experts sets them."""
    written = bridge_model(dataclasses.replace(LLAMA, **EXPERTS, moe_router_topk=3))
    expected = {
        "num_moe_experts": 4,
        "moe_ffn_hidden_size": 32,
        "moe_router_topk": 3,
        "moe_grouped_gemm": True,
        "moe_token_dispatcher_type": "alltoall",
        "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": 0.001,
    }
    assert expected.items() <= written.items()
    assert "moe_router_pre_softmax" not in written
    assert bridge_model(model("moe_router_pre_softmax"))["moe_router_pre_softmax"] is True
    dense = bridge_model(LLAMA)
    assert not [name for name in dense if "moe" in name or "expert" in name]


def test_mixture_of_experts_in_megatron_lm_s_terms():
    """Arguments that --use-checkpoint-args restores."""
    written = megatron_lm_arguments(dataclasses.replace(LLAMA, **EXPERTS))
    expected = {
        "num_experts": 4,
        "moe_layer_freq": 1,
        "moe_ffn_hidden_size": 32,
        "moe_router_topk": 2,
        "moe_router_pre_softmax": False,
        "moe_grouped_gemm": True,
        "moe_shared_expert_intermediate_size": None,
    }
    assert expected.items() <= written.items()
    assert megatron_lm_arguments(LLAMA)["num_experts"] is None


def test_yarn_in_bridge_s_terms():
    written = bridge_model(model("yarn"))
    assert written["position_embedding_type"] == "yarn"
    assert written["yarn_rotary_scaling_factor"] == 2.0
    assert written["yarn_original_max_position_embeddings"] == 256


def test_no_arguments_are_written_for_a_refused_model(caplog):
    state = megatron_lm_args.common_state(model("softmax_type"), 1, torch.bfloat16)
    assert state == common_without_arguments()
    assert "Megatron-LM cannot express softmax_type = 'learnable'" in caplog.text
