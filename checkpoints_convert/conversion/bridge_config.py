"""The `run_config.yaml` from which Megatron-Bridge builds the model of a checkpoint.

Bridge reads the file with a safe YAML loader and calls the class in `_target_`; here that is its
`GPTModelProvider`, whose fields are those of Megatron Core's TransformerConfig and GPTModel.
"""

import logging
from pathlib import Path
from typing import Any

import torch
import yaml

from checkpoints_convert.conversion.interop_target import InteropTarget, always, is_function, never
from galen.atomic import write_text
from megatron_ext.config.architecture import Architecture, properties
from megatron_ext.config.architecture_sizes import VOCAB_MULTIPLE

logger = logging.getLogger(__name__)

NAME = "run_config.yaml"
_GEMMA3 = "gemma3_text"


_CORE_PROPERTIES = (
    "layernorm_zero_centered_gamma",
    "softmax_scale",
    "softmax_type",
    "glu_linear_offset",
    "activation_func_clamp_value",
    "num_moe_experts",
    "moe_router_topk",
    "moe_ffn_hidden_size",
    "moe_router_pre_softmax",
    "moe_shared_expert_intermediate_size",
    "moe_shared_expert_gate",
)
"""Properties with Megatron Core's names and defaults, which are written unless they have these."""
_OF_ALL_MODELS = (
    "rope_scaling_factor",
    "yarn",
    "seq_len_interpolation_factor",
    "rotary_percent",
    "add_bias_linear",
    "add_qkv_bias",
    "qk_layernorm",
    "window_size",
    "window_attn_skip_freq",
    "gated_mlp",
)
TARGET = InteropTarget(
    "Megatron-Bridge",
    supports={
        **dict.fromkeys((*_OF_ALL_MODELS, *_CORE_PROPERTIES), always),
        "activation": is_function,
    },
    refuses=frozenset(
        {
            "full_width_qk_norm",
            "llama_4_scaling_beta",
            "local_rotary_base",
            "longrope",
            "norm_placement",
            "scale_embeddings",
        }
    ),
)
_GEMMA3_LAYERS = (5, 1)
"""Windowed layers, and layers without a window after them, of Bridge's Gemma 3."""


def _has_gemma3_layers(architecture: Architecture) -> bool:
    period = sum(_GEMMA3_LAYERS)
    expected = tuple(int((number + 1) % period > 0) for number in range(architecture.num_layers))
    return architecture.window_attn_skip_freq == expected


GEMMA3_TARGET = InteropTarget(
    "Megatron-Bridge",
    supports={
        **TARGET.supports,
        "yarn": never,
        "rope_scaling_factor": never,
        **dict.fromkeys(("window_attn_skip_freq", "norm_placement"), _has_gemma3_layers),
        **dict.fromkeys(("local_rotary_base", "scale_embeddings"), always),
    },
    refuses=frozenset({"full_width_qk_norm", "llama_4_scaling_beta", "longrope"}),
)
"""For models of family gemma3_text, whose provider has these properties built in."""
_MOE_TRAINING = {
    "moe_grouped_gemm": True,
    "moe_token_dispatcher_type": "alltoall",
    "moe_router_load_balancing_type": "aux_loss",
    "moe_aux_loss_coeff": 1e-3,
}
"""What Megatron-Bridge's own import of a Qwen3 mixture of experts sets."""


def write(
    folder: Path, architecture: Architecture, tensor_parallel: int, dtype: torch.dtype
) -> None:
    """Write `run_config.yaml` into the folder of an iteration.

    A model that Megatron-Bridge cannot express gets none, with a warning.
    """
    target = GEMMA3_TARGET if architecture.family == _GEMMA3 else TARGET
    if refusal := target.refusal(architecture):
        logger.warning(f"{refusal}: the checkpoint has no {NAME} for it (Galen needs none)")
        return
    write_text(
        folder / NAME,
        yaml.safe_dump(run_config(architecture, tensor_parallel, dtype), sort_keys=False),
    )


def provider_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments that Megatron-Bridge and NeMo, from which its models come, share."""
    core = architecture.core_arguments()
    sizes = (
        "num_layers",
        "hidden_size",
        "ffn_hidden_size",
        "num_attention_heads",
        "num_query_groups",
        "kv_channels",
    )
    properties = ("layernorm_epsilon", "gated_linear_unit", "add_qkv_bias", "qk_layernorm")
    return {
        **{name: core[name] for name in sizes},
        "seq_length": architecture.max_position_embeddings,
        "vocab_size": architecture.vocab_size,
        "share_embeddings_and_output_weights": architecture.share_embeddings_and_output_weights,
        **{name: core[name] for name in properties},
    }


def _property_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments of properties that few models have."""
    defaults = properties()
    arguments: dict[str, Any] = {}
    for name in (*_CORE_PROPERTIES, "seq_len_interpolation_factor"):
        value = getattr(architecture, name)
        if value != defaults[name]:
            arguments[name] = value
    if architecture.is_moe:
        arguments |= _MOE_TRAINING
    if architecture.yarn is not None:
        arguments |= architecture.yarn.core_attributes()
    return arguments


def _gemma3_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments in which Bridge's `Gemma3ModelProvider` differs from others."""
    local_base = architecture.local_rotary_base or architecture.rotary_base
    scale = architecture.softmax_scale or architecture.kv_channels**-0.5
    return {
        "_target_": "megatron.bridge.models.gemma.gemma3_provider.Gemma3ModelProvider",
        "rotary_base": [local_base, architecture.rotary_base],
        "rope_scaling_factor": architecture.seq_len_interpolation_factor or 1.0,
        # which would be the same scaling once more, of all layers
        "seq_len_interpolation_factor": None,
        "softmax_scale": scale,
        "window_size": architecture.window_size,
        "window_attn_skip_freq": None,
        "interleaved_attn_pattern": list(_GEMMA3_LAYERS),
    }


def run_config(
    architecture: Architecture, tensor_parallel: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the parts of a run's configuration that Megatron-Bridge reads: model and checkpoint.

    The path of the tokenizer is left out, as the folder may move: `load_tokenizer(folder,
    tokenizer_model=…)`.
    """
    core = architecture.core_arguments()
    window = core["window_size"]
    layers = {}
    if architecture.window_attn_skip_freq is not None:
        layers["window_attn_skip_freq"] = core["window_attn_skip_freq"]
    return {
        "model": {
            "_target_": "megatron.bridge.models.gpt_provider.GPTModelProvider",
            **provider_arguments(architecture),
            **_property_arguments(architecture),
            "should_pad_vocab": True,
            # gives the padding of the checkpoint on one rank
            "make_vocab_size_divisible_by": VOCAB_MULTIPLE * tensor_parallel,
            "position_embedding_type": "rope" if architecture.yarn is None else "yarn",
            "rotary_base": architecture.core_rotary_base,
            "rotary_percent": architecture.rotary_percent,
            "rope_scaling": architecture.rope_scaling_factor is not None,
            "rope_scaling_factor": architecture.rope_scaling_factor or 1.0,
            "normalization": core["normalization"],
            "activation_func": {"_target_": core["activation_func"], "_call_": False},
            "add_bias_linear": core["add_bias_linear"],
            "window_size": None if window is None else list(window),
            **layers,
            "hidden_dropout": core["hidden_dropout"],
            "attention_dropout": core["attention_dropout"],
            "tensor_model_parallel_size": 1,
            "pipeline_model_parallel_size": 1,
            "bf16": dtype == torch.bfloat16,
            "fp16": dtype == torch.float16,
            "params_dtype": {"_target_": str(dtype), "_call_": False},
            "autocast_dtype": {"_target_": str(dtype), "_call_": False},
            **(_gemma3_arguments(architecture) if architecture.family == _GEMMA3 else {}),
        },
        "tokenizer": {
            "_target_": "megatron.bridge.training.tokenizers.config.TokenizerConfig",
            "tokenizer_type": "HuggingFaceTokenizer",
        },
        "checkpoint": {
            "ckpt_format": "torch_dist",
            "save_optim": False,
            "save_rng": False,
            "fully_parallel_save": False,
        },
    }
