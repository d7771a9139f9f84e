"""Models of the published runs that the planner's speed model is fitted to and compared with."""

import dataclasses
from pathlib import Path
from typing import Any

from megatron_ext.config.architecture import Architecture, read_architecture

ARCHITECTURES = Path(__file__).parents[1] / "examples/pretrain/architectures"


def _model(sizes: str, *, gated: bool = True, tied: bool = False) -> Architecture:
    """Return a model of `sizes`: layers, hidden size, MLP, heads, groups, vocabulary."""
    layers, hidden, mlp, heads, groups, vocab = map(int, sizes.split())
    return Architecture(
        family="llama",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=mlp,
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=hidden // heads,
        vocab_size=vocab,
        max_position_embeddings=8192,
        rotary_base=1e4,
        layernorm_epsilon=1e-5,
        share_embeddings_and_output_weights=tied,
        gated_mlp=gated,
        activation="silu" if gated else "relu2",
    )


# GPT-3's learned positions, biases and GELU cost about what rotary positions and ReLU² cost
MODELS = {
    "GPT-3 5B": _model("24 4096 16384 32 32 51200", gated=False, tied=True),
    "Llama 2 7B": _model("32 4096 11008 32 32 32000"),
    "Llama 3 8B": _model("32 4096 14336 32 8 128256"),
    "Nemotron 8B": _model("32 4096 16384 32 32 256000", gated=False),
    "Llama 2 13B": _model("40 5120 13824 40 40 32000"),
    "Nemotron-4 15B": _model("32 6144 24576 48 8 256000", gated=False),
    "GPT-3 20B": _model("44 6144 24576 48 48 51200", gated=False, tied=True),
    "Nemotron 22B": _model("40 6144 24576 48 48 256000", gated=False),
    "Llama 2 70B": _model("80 8192 28672 64 8 32000"),
    "Llama 3 70B": _model("80 8192 28672 64 8 128256"),
    "GPT-3 175B": _model("96 12288 49152 96 96 51200", gated=False, tied=True),
    "Nemotron-4 340B": _model("96 18432 73728 96 8 256000", gated=False),
    "Llama 3.1 405B": _model("126 16384 53248 128 8 128256"),
    # a slice of it that DGXC runs on fewer GPUs
    "Llama 3.1 405B, 7 layers": _model("7 16384 53248 128 8 128256"),
    "MEDITRON-70B": read_architecture(ARCHITECTURES / "meditron_70b.json"),
}


def _experts(sizes: str, **properties: Any) -> Architecture:
    """Return a mixture of experts of `sizes`: as `_model`, then head size, experts, active ones."""
    dense, head, number, active = sizes.rsplit(maxsplit=3)
    model = _model(dense)
    return dataclasses.replace(
        model,
        kv_channels=int(head),
        num_moe_experts=int(number),
        moe_router_topk=int(active),
        moe_ffn_hidden_size=model.ffn_hidden_size,
        **properties,
    )


_GPT_OSS: dict[str, Any] = {
    "add_qkv_bias": True,
    "add_bias_linear": True,
    "softmax_type": "learnable",
    "activation": "quick_gelu",
    "glu_linear_offset": 1.0,
    "activation_func_clamp_value": 7.0,
    "window_size": 128,
    "window_attn_skip_freq": (1, 0) * 18,
}
MODELS |= {
    "Qwen3 30B-A3B": _experts("48 2048 768 32 4 151936 128 128 8", qk_layernorm=True),
    "Qwen3 235B-A22B": _experts("94 4096 1536 64 4 151936 128 128 8", qk_layernorm=True),
    "gpt-oss 120B": _experts("36 2880 2880 64 8 201088 64 128 4", **_GPT_OSS),
}
HELD_OUT_MODELS = (
    "Qwen3 235B-A22B",
    "GPT-3 5B",
    "Nemotron 8B",
    "Llama 2 13B",
    "Nemotron 22B",
    "Llama 2 70B",
    "Nemotron-4 340B",
    "Llama 3.1 405B",
    "Llama 3.1 405B, 7 layers",
    "MEDITRON-70B",
)
