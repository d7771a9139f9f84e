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
    "decoder.layers.mlp.linear_fc1.layer_norm_weight": lambda a: (a.hidden_size,),
    "decoder.layers.self_attention.linear_proj.post_layernorm.weight": lambda a: (a.hidden_size,),
    "decoder.layers.mlp.linear_fc1.weight": lambda a: (
        a.mlp_input_projections * a.ffn_hidden_size,
        a.hidden_size,
    ),
    "decoder.layers.mlp.linear_fc2.weight": lambda a: (a.hidden_size, a.ffn_hidden_size),
    "decoder.layers.mlp.linear_fc2.post_layernorm.weight": lambda a: (a.hidden_size,),
}
VOCAB_TENSORS = frozenset({"embedding.word_embeddings.weight", "output_layer.weight"})
"""Tensors with a row per token, padded by Megatron."""


def shape(name: str, architecture: Architecture) -> tuple[int, ...]:
    """Return the size of a Megatron tensor, padded for one tensor-parallel rank.

    For a tensor that every layer has, it is the size in one layer.
    """
    return _SHAPES[name](architecture)


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
        "mlp.linear_fc1",
        "mlp.linear_fc2",
    ]
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
    return [*states, "decoder.final_layernorm._extra_state/shard_0_1"]
