"""The `run_config.yaml` by which Megatron-Bridge knows how to build the model of a checkpoint.

Bridge reads the file with a safe YAML loader and calls what a `_target_` names; here that is its
`GPTModelProvider`, whose fields are those of Megatron Core's TransformerConfig and GPTModel.
"""

from pathlib import Path
from typing import Any

import torch
import yaml

from galen.atomic import write_text
from megatron_ext.config.architecture import VOCAB_MULTIPLE, Architecture

NAME = "run_config.yaml"


def write(
    folder: Path, architecture: Architecture, tensor_parallel: int, dtype: torch.dtype
) -> None:
    """Write `run_config.yaml` into the folder of an iteration."""
    write_text(
        folder / NAME,
        yaml.safe_dump(run_config(architecture, tensor_parallel, dtype), sort_keys=False),
    )


def provider_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return what Megatron-Bridge and NeMo, whose models it took over, call by the same names."""
    return {
        "num_layers": architecture.num_layers,
        "hidden_size": architecture.hidden_size,
        "ffn_hidden_size": architecture.ffn_hidden_size,
        "num_attention_heads": architecture.num_attention_heads,
        "num_query_groups": architecture.num_query_groups,
        "kv_channels": architecture.kv_channels,
        "seq_length": architecture.max_position_embeddings,
        "vocab_size": architecture.vocab_size,
        "share_embeddings_and_output_weights": architecture.share_embeddings_and_output_weights,
        "layernorm_epsilon": architecture.layernorm_epsilon,
        "gated_linear_unit": True,
        "add_qkv_bias": architecture.add_qkv_bias,
        "qk_layernorm": architecture.qk_layernorm,
    }


def run_config(
    architecture: Architecture, tensor_parallel: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Return what Megatron-Bridge reads of a run's configuration: model and checkpoint.

    The tokenizer's place is left open, as the folder may move: `load_tokenizer(folder,
    tokenizer_model=…)`.
    """
    return {
        "model": {
            "_target_": "megatron.bridge.models.gpt_provider.GPTModelProvider",
            **provider_arguments(architecture),
            "should_pad_vocab": True,
            # gives the padding of the checkpoint on one rank
            "make_vocab_size_divisible_by": VOCAB_MULTIPLE * tensor_parallel,
            "position_embedding_type": "rope",
            "rotary_base": int(architecture.rotary_base),
            "rotary_percent": 1.0,
            "rope_scaling": architecture.rope_scaling_factor is not None,
            "rope_scaling_factor": architecture.rope_scaling_factor or 1.0,
            "normalization": "RMSNorm",
            "activation_func": {"_target_": "torch.nn.functional.silu", "_call_": False},
            "add_bias_linear": False,
            "window_size": (
                None if architecture.window_size is None else [architecture.window_size - 1, 0]
            ),
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "tensor_model_parallel_size": 1,
            "pipeline_model_parallel_size": 1,
            "bf16": dtype == torch.bfloat16,
            "fp16": dtype == torch.float16,
            "params_dtype": {"_target_": str(dtype), "_call_": False},
            "autocast_dtype": {"_target_": str(dtype), "_call_": False},
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
