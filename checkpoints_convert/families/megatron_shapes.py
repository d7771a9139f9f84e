"""The tensors of a Megatron model and their sizes, for any family."""

from collections.abc import Callable

from megatron_ext.config.architecture import Architecture

_SHAPES: dict[str, Callable[[Architecture], tuple[int, ...]]] = {
    "embedding.word_embeddings.weight": lambda a: (a.padded_vocab_size(), a.hidden_size),
    "output_layer.weight": lambda a: (a.padded_vocab_size(), a.hidden_size),
    "decoder.final_layernorm.weight": lambda a: (a.hidden_size,),
    "decoder.layers.self_attention.linear_qkv.layer_norm_weight": lambda a: (a.hidden_size,),
    "decoder.layers.self_attention.linear_qkv.weight": lambda a: (_qkv(a), a.hidden_size),
    "decoder.layers.self_attention.linear_qkv.bias": lambda a: (_qkv(a),),
    "decoder.layers.self_attention.q_layernorm.weight": lambda a: (
        a.query_size if a.full_width_qk_norm else a.kv_channels,
    ),
    "decoder.layers.self_attention.k_layernorm.weight": lambda a: (
        a.key_value_size if a.full_width_qk_norm else a.kv_channels,
    ),
    "decoder.layers.self_attention.linear_proj.weight": lambda a: (
        a.hidden_size,
        a.num_attention_heads * a.kv_channels,
    ),
    "decoder.layers.self_attention.linear_proj.bias": lambda a: (a.hidden_size,),
    "decoder.layers.self_attention.core_attention.softmax_offset": lambda a: (
        a.num_attention_heads,
    ),
    "decoder.layers.mlp.linear_fc1.layer_norm_weight": lambda a: (a.hidden_size,),
    "decoder.layers.self_attention.linear_proj.post_layernorm.weight": lambda a: (a.hidden_size,),
    "decoder.layers.mlp.linear_fc1.weight": lambda a: (
        a.mlp_input_projections * a.ffn_hidden_size,
        a.hidden_size,
    ),
    "decoder.layers.mlp.activation_func.alpha_p": lambda a: (1,),
    "decoder.layers.mlp.activation_func.alpha_n": lambda a: (1,),
    "decoder.layers.mlp.activation_func.beta": lambda a: (1,),
    "decoder.layers.mlp.activation_func.eps": lambda a: (1,),
    "decoder.layers.mlp.linear_fc2.weight": lambda a: (a.hidden_size, a.ffn_hidden_size),
    "decoder.layers.mlp.linear_fc2.post_layernorm.weight": lambda a: (a.hidden_size,),
    "decoder.layers.pre_mlp_layernorm.weight": lambda a: (a.hidden_size,),
    "decoder.layers.mlp.router.weight": lambda a: (a.num_moe_experts or 0, a.hidden_size),
    "decoder.layers.mlp.router.bias": lambda a: (a.num_moe_experts or 0,),
    "decoder.layers.mlp.experts.experts.linear_fc1.weight": lambda a: (
        a.mlp_input_projections * (a.moe_ffn_hidden_size or 0),
        a.hidden_size,
    ),
    "decoder.layers.mlp.experts.experts.linear_fc2.weight": lambda a: (
        a.hidden_size,
        a.moe_ffn_hidden_size or 0,
    ),
    "decoder.layers.mlp.experts.experts.linear_fc1.bias": lambda a: (
        a.mlp_input_projections * (a.moe_ffn_hidden_size or 0),
    ),
    "decoder.layers.mlp.experts.experts.linear_fc2.bias": lambda a: (a.hidden_size,),
    "decoder.layers.mlp.shared_experts.gate_weight": lambda a: (1, a.hidden_size),
    "decoder.layers.mlp.shared_experts.linear_fc1.weight": lambda a: (
        a.mlp_input_projections * (a.moe_shared_expert_intermediate_size or 0),
        a.hidden_size,
    ),
    "decoder.layers.mlp.shared_experts.linear_fc2.weight": lambda a: (
        a.hidden_size,
        a.moe_shared_expert_intermediate_size or 0,
    ),
}
VOCAB_TENSORS = frozenset({"embedding.word_embeddings.weight", "output_layer.weight"})
"""Tensors with a row per token, padded by Megatron."""


def shape(name: str, architecture: Architecture) -> tuple[int, ...]:
    """Return the size of a Megatron tensor, padded for one tensor-parallel rank.

    For a tensor that every layer has, it is the size in one layer; for one of experts, that of one
    expert.
    """
    return _SHAPES[name](architecture)


def is_expert(name: str) -> bool:
    """Return whether each expert has this tensor."""
    return ".mlp.experts." in name


def stack_sizes(name: str, architecture: Architecture) -> tuple[int, ...]:
    """Return the number of layers and experts over which Megatron stacks a tensor."""
    if not name.startswith("decoder.layers."):
        return ()
    if is_expert(name):
        return (architecture.num_layers, architecture.num_moe_experts or 0)
    return (architecture.num_layers,)


def _qkv(architecture: Architecture) -> int:
    return architecture.kv_channels * (
        architecture.num_attention_heads + 2 * architecture.num_query_groups
    )


def extra_states(architecture: Architecture) -> list[str]:
    """Return the names of the FP8 states of Transformer Engine's modules, layer by layer."""
    modules = [
        "self_attention.linear_qkv",
        "self_attention.core_attention",
        "self_attention.linear_proj",
    ]
    mlps = ["mlp"]
    if architecture.is_moe:
        modules.append("pre_mlp_layernorm")
        mlps = []
        if architecture.moe_shared_expert_intermediate_size is not None:
            mlps.append("mlp.shared_experts")
    modules += [f"{mlp}.{linear}" for mlp in mlps for linear in ("linear_fc1", "linear_fc2")]
    if architecture.qk_layernorm:
        modules += ["self_attention.q_layernorm", "self_attention.k_layernorm"]
    if architecture.norms_after:
        modules += ["self_attention.linear_proj.post_layernorm", "mlp.linear_fc2.post_layernorm"]
    count = architecture.num_layers
    states = [
        f"decoder.layers.{module}._extra_state/shard_{layer}_{count}"
        for module in modules
        for layer in range(count)
    ]
    states += _expert_extra_states(architecture)
    return [*states, "decoder.final_layernorm._extra_state/shard_0_1"]


def _expert_extra_states(architecture: Architecture) -> list[str]:
    layers = architecture.num_layers
    experts = architecture.num_moe_experts or 0
    return [
        f"decoder.layers.mlp.experts.experts.{module}._extra_state"
        f"/shard_{layer}.{expert}_{layers}.{experts}"
        for module in ("linear_fc1", "linear_fc2")
        for layer in range(layers)
        for expert in range(experts)
    ]
