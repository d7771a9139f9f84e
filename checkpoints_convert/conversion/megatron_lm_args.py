"""The arguments that other trainers read from the `common.pt` of a checkpoint.

These are Megatron-LM (--use-checkpoint-args) and Megatron-Bridge.
"""

import logging
from typing import Any

import torch

from checkpoints_convert.conversion.interop_target import InteropTarget, always
from megatron_ext.checkpoint import torch_dist
from megatron_ext.config.architecture import Architecture

logger = logging.getLogger(__name__)

# Arguments that Megatron-Bridge requires, at Megatron-LM's defaults.
_BRIDGE_READS: dict[str, Any] = {
    "multi_latent_attention": False,
    "heterogeneous_layers_config_path": None,
    "no_persist_layer_norm": False,
    "overlap_p2p_comm": False,
    "num_experts": None,
    "rotary_interleaved": False,
    "decoder_first_pipeline_num_layers": None,
    "decoder_last_pipeline_num_layers": None,
    "fp8_param_gather": False,
    "bias_swiglu_fusion": True,
    "bias_gelu_fusion": False,
    "squared_relu": False,
    "init_method_xavier_uniform": False,
    "config_logger_dir": "",
    "cp_comm_type": ["p2p"],
    "is_hybrid_model": False,
}


_MLP_FLAGS = {("silu", True): (True, False), ("relu2", False): (False, True)}
"""By activation and gate: --swiglu and --squared-relu."""


def _has_mlp_flags(architecture: Architecture) -> bool:
    return (architecture.activation, architecture.gated_mlp) in _MLP_FLAGS


_MOE = (
    "moe_router_topk",
    "moe_ffn_hidden_size",
    "moe_router_pre_softmax",
    "moe_shared_expert_intermediate_size",
)
"""Properties of experts that Megatron-LM restores from a checkpoint under the same name."""
_OF_ALL_MODELS = (
    "rope_scaling_factor",
    "rotary_percent",
    "add_bias_linear",
    "add_qkv_bias",
    "qk_layernorm",
    "window_size",
    "window_attn_skip_freq",
    "layernorm_zero_centered_gamma",
    "num_moe_experts",
)
TARGET = InteropTarget(
    "Megatron-LM",
    supports={
        **dict.fromkeys((*_OF_ALL_MODELS, *_MOE), always),
        "activation": _has_mlp_flags,
        "gated_mlp": _has_mlp_flags,
    },
    # --use-checkpoint-args does not restore these
    refuses=frozenset(
        {
            "activation_func_clamp_value",
            "full_width_qk_norm",
            "glu_linear_offset",
            "llama_4_scaling_beta",
            "local_rotary_base",
            "longrope",
            "moe_shared_expert_gate",
            "norm_placement",
            "scale_embeddings",
            "seq_len_interpolation_factor",
            "softmax_scale",
            "softmax_type",
            "yarn",
        }
    ),
)


def common_state(
    architecture: Architecture, tensor_parallel: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the content of `common.pt` for an imported model.

    Its vocabulary is padded for `tensor_parallel` ranks. The arguments of a model that Megatron-LM
    cannot express are left out, with a warning.
    """
    if refusal := TARGET.refusal(architecture):
        logger.warning(
            f"{refusal}: the checkpoint has no arguments for Megatron-LM (Galen needs none)"
        )
        return torch_dist.common_without_arguments()
    core = architecture.core_arguments()
    layers = {}
    if architecture.window_attn_skip_freq is not None:
        layers["window_attn_skip_freq"] = core["window_attn_skip_freq"]
    swiglu, squared_relu = _MLP_FLAGS[architecture.activation, architecture.gated_mlp]
    return torch_dist.megatron_arguments(
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        ffn_hidden_size=architecture.ffn_hidden_size,
        num_attention_heads=architecture.num_attention_heads,
        num_query_groups=architecture.num_query_groups,
        group_query_attention=architecture.num_query_groups != architecture.num_attention_heads,
        kv_channels=architecture.kv_channels,
        max_position_embeddings=architecture.max_position_embeddings,
        seq_length=architecture.max_position_embeddings,
        position_embedding_type="rope",
        rotary_base=architecture.core_rotary_base,
        rotary_percent=architecture.rotary_percent,
        use_rope_scaling=architecture.rope_scaling_factor is not None,
        rope_scaling_factor=architecture.rope_scaling_factor or 8.0,
        norm_epsilon=architecture.layernorm_epsilon,
        layernorm_epsilon=architecture.layernorm_epsilon,
        normalization=core["normalization"],
        swiglu=swiglu,
        add_bias_linear=core["add_bias_linear"],
        add_qkv_bias=architecture.add_qkv_bias,
        qk_layernorm=architecture.qk_layernorm,
        window_size=core["window_size"],
        untie_embeddings_and_output_weights=not architecture.share_embeddings_and_output_weights,
        padded_vocab_size=architecture.padded_vocab_size(tensor_parallel),
        tensor_model_parallel_size=tensor_parallel,
        pipeline_model_parallel_size=1,
        iteration=0,
        consumed_train_samples=0,
        consumed_valid_samples=0,
        ckpt_format="torch_dist",
        **layers,
        **(_BRIDGE_READS | {"squared_relu": squared_relu} | _property_arguments(architecture)),
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
    )


def _property_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments of properties that few models have."""
    arguments: dict[str, Any] = {}
    if architecture.layernorm_zero_centered_gamma:
        arguments["apply_layernorm_1p"] = True
    if architecture.is_moe:
        arguments |= {name: getattr(architecture, name) for name in _MOE}
        arguments |= {
            "num_experts": architecture.num_moe_experts,
            "moe_layer_freq": 1,
            "moe_grouped_gemm": True,
            "moe_token_dispatcher_type": "alltoall",
            "expert_model_parallel_size": 1,
        }
    return arguments
