"""Logits of Megatron-Bridge's own model, compared with those of transformers, without CUDA.

Started by test_bridge.py with the Python of Megatron-Bridge's environment, not with Galen's.

Usage: FOLDER… each with a Hugging Face folder `hf`. Megatron-Bridge makes the model's arguments and
loads the weights. Its layers are those of Megatron Core without Transformer Engine, with PyTorch's
RMSNorm and without fused kernels, on Galen's CPU platform.
"""

import sys
from pathlib import Path

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer import torch_norm

from megatron_ext.hardware import cpu_platform
from tests.checkpoints_convert import bridge_side

BOUND = 1e-5
_OFF = (
    "bf16",
    "moe_grouped_gemm",
    "moe_permute_fusion",
    "bias_activation_fusion",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "persist_layer_norm",
    "apply_rope_fusion",
    "gradient_accumulation_fusion",
    "perform_initialization",
)


def _norm(_, config, hidden_size, eps=1e-5, *__, **___):
    return torch.nn.RMSNorm(hidden_size, eps=eps, dtype=config.params_dtype)


def _layer(config):
    return get_gpt_layer_local_spec(
        num_experts=config.num_moe_experts,
        moe_grouped_gemm=False,
        qk_layernorm=config.qk_layernorm,
        normalization=config.normalization,
    )


def bridge_logits(hf, tokens):
    """Return the logits of Megatron-Bridge's model, without the padding of the vocabulary."""
    from megatron.bridge import AutoBridge

    bridge = AutoBridge.from_hf_pretrained(str(hf))
    provider = bridge.to_megatron_provider(load_weights=False)
    for name in _OFF:
        setattr(provider, name, False)
    provider.params_dtype = provider.pipeline_dtype = provider.autocast_dtype = torch.float32
    provider.moe_token_dispatcher_type = "allgather"
    provider.transformer_layer_spec = _layer
    provider.finalize()
    provider._pg_collection = ProcessGroupCollection.use_mpu_process_groups()
    model = provider.provide(pre_process=True, post_process=True)
    bridge.load_hf_weights([model])
    with torch.no_grad():
        return model.eval()(tokens, torch.arange(tokens.size(1))[None], None)


def reference_logits(hf, tokens):
    """Return the logits of transformers."""
    from transformers import AutoModelForCausalLM

    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(hf, **options)(tokens).logits


def main():
    bridge_side.prepare()
    cpu_platform.install()
    torch_norm.WrappedTorchNorm.__new__ = _norm
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    failed = False
    tokens = (torch.arange(64) * 37 % 300)[None]
    for path in sys.argv[1:]:
        hf = Path(path) / "hf"
        expected = reference_logits(hf, tokens)
        actual = bridge_logits(hf, tokens)[..., : expected.size(-1)]
        difference = float((actual - expected).abs().max() / expected.abs().max())
        print(f"{Path(path).name}: largest relative difference {difference:.1e}")
        failed |= not difference < BOUND
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
