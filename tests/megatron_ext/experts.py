"""A tiny mixture of experts with random weights, written as `galen import` writes a checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert.families import megatron_shapes
from megatron_ext.checkpoint import checkpoint_folder, torch_dist
from megatron_ext.config.architecture import Architecture

ARCHITECTURE: dict[str, Any] = {
    "family": "qwen3_moe",
    "num_layers": 4,
    "hidden_size": 32,
    "ffn_hidden_size": 64,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "rotary_base": 10000.0,
    "layernorm_epsilon": 1e-5,
    "qk_layernorm": True,
    "share_embeddings_and_output_weights": False,
    "num_moe_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "moe_shared_expert_gate": True,
}
_LAYER = [
    "self_attention.linear_qkv.layer_norm_weight",
    "self_attention.linear_qkv.weight",
    "self_attention.q_layernorm.weight",
    "self_attention.k_layernorm.weight",
    "self_attention.linear_proj.weight",
    "pre_mlp_layernorm.weight",
    "mlp.router.weight",
    "mlp.experts.experts.linear_fc1.weight",
    "mlp.experts.experts.linear_fc2.weight",
    "mlp.shared_experts.gate_weight",
    "mlp.shared_experts.linear_fc1.weight",
    "mlp.shared_experts.linear_fc2.weight",
]
_ONCE = [
    "embedding.word_embeddings.weight",
    "output_layer.weight",
    "decoder.final_layernorm.weight",
]


def write_checkpoint(checkpoint: Path, companions: Path, **properties: Any) -> Architecture:
    """Write a checkpoint with the companions (tokenizer) of another; return its architecture."""
    architecture = Architecture(**(ARCHITECTURE | properties))
    folder = checkpoint_folder.iteration_folder(checkpoint, 0)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    names = [*(f"decoder.layers.{name}" for name in _LAYER), *_ONCE]
    file = "__0_0.distcp"
    entries = []
    with (folder / file).open("wb") as stream:
        for name in names:
            stack = megatron_shapes.stack_sizes(name, architecture)
            shape = (*stack, *megatron_shapes.shape(name, architecture))
            tensor = 0.1 * torch.randn(shape, generator=generator)
            if "norm" in name:
                tensor += 1
            offset = (0,) * len(shape)
            entries.append(torch_dist.write_entry(stream, file, name, shape, offset, tensor))
    torch_dist.finish(folder, entries, {"iteration": 0})
    architecture.write(folder)
    (checkpoint / "latest_checkpointed_iteration.txt").write_text("0")
    shutil.copytree(companions, checkpoint / "hf")
    return architecture
