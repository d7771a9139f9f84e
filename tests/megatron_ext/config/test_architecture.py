import json
from typing import Any

import pytest

from galen.errors import DataError
from megatron_ext.config.architecture import Architecture, read_architecture

_MIXTRAL: dict[str, Any] = {
    "family": "mixtral",
    "num_layers": 32,
    "hidden_size": 4096,
    "ffn_hidden_size": 14336,
    "num_attention_heads": 32,
    "num_query_groups": 8,
    "kv_channels": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rotary_base": 1e6,
    "layernorm_epsilon": 1e-5,
    "share_embeddings_and_output_weights": False,
    "num_moe_experts": 8,
    "moe_ffn_hidden_size": 14336,
}
_QWEN3_30B_A3B = _MIXTRAL | {
    "family": "qwen3_moe",
    "num_layers": 48,
    "hidden_size": 2048,
    "ffn_hidden_size": 6144,
    "num_query_groups": 4,
    "vocab_size": 151936,
    "qk_layernorm": True,
    "num_moe_experts": 128,
    "moe_router_topk": 8,
    "moe_ffn_hidden_size": 768,
}

_GPT_OSS_20B = _MIXTRAL | {
    "family": "gpt_oss",
    "num_layers": 24,
    "hidden_size": 2880,
    "ffn_hidden_size": 2880,
    "num_attention_heads": 64,
    "kv_channels": 64,
    "vocab_size": 201088,
    "activation": "quick_gelu",
    "add_bias_linear": True,
    "add_qkv_bias": True,
    "softmax_type": "learnable",
    "num_moe_experts": 32,
    "moe_router_topk": 4,
    "moe_ffn_hidden_size": 2880,
}


def test_parameters_of_published_mixtures_of_experts() -> None:
    mixtral = Architecture(**_MIXTRAL)
    assert mixtral.parameters == 46_702_792_704
    assert round(mixtral.active_parameters / 1e9, 1) == 12.9
    qwen = Architecture(**_QWEN3_30B_A3B)
    assert qwen.parameters == 30_532_122_624
    assert round(qwen.active_parameters / 1e9, 1) == 3.4
    gpt_oss = Architecture(**_GPT_OSS_20B)
    assert gpt_oss.parameters == 20_914_757_184
    embedding = gpt_oss.vocab_size * gpt_oss.hidden_size  # not counted by OpenAI
    assert round((gpt_oss.active_parameters - embedding) / 1e9, 2) == 3.61


def test_flops_count_active_parameters_and_the_router() -> None:
    dense = _MIXTRAL | {"num_moe_experts": None, "moe_ffn_hidden_size": None}
    dense["ffn_hidden_size"] = 2 * 14336  # two experts per token
    router = 6 * 32 * 8 * 4096
    expected = Architecture(**dense).flops_per_token(4096) + router
    assert Architecture(**_MIXTRAL).flops_per_token(4096) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "xielu"}, "xielu has learned parameters: it needs an MLP without a gate"),
        ({"add_qkv_bias": False}, "add_bias_linear includes query, key and value"),
        ({"activation": "silu", "glu_linear_offset": 1.0}, "need gated_mlp and activation"),
        ({"gated_mlp": False, "activation_func_clamp_value": 7.0}, "need gated_mlp and activ"),
        ({"moe_shared_expert_intermediate_size": 64}, "no shared expert with biases"),
    ],
)
def test_properties_that_contradict(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**(_GPT_OSS_20B | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_moe_experts": None}, "moe_ffn_hidden_size needs num_moe_experts"),
        ({"moe_ffn_hidden_size": None}, "num_moe_experts needs moe_ffn_hidden_size"),
        ({"moe_router_topk": 9}, "moe_router_topk is larger than num_moe_experts"),
        ({"num_moe_experts": 9999}, "num_layers x num_moe_experts is larger than 200,000"),
        ({"moe_shared_expert_gate": True}, "needs moe_shared_expert_intermediate_size"),
    ],
)
def test_fields_of_experts_that_contradict(
    fields: dict[str, Any], message: str, tmp_path: Any
) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(_MIXTRAL | fields))
    with pytest.raises(DataError, match=message):
        read_architecture(path)
