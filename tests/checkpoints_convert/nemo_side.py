"""NeMo's own converters on a machine without CUDA.

Started by test_nemo.py with the Python of NeMo's environment, not with Galen's.

Usage: import CLASS HF NEMO | export CLASS NEMO HF. An export also computes the logits of NeMo's
model: HF/logits.safetensors.

Without Transformer Engine, NeMo chooses Megatron Core's own layers: its converters then look for
norms under names that these layers do not have, and the layers refuse settings that only choose a
kernel. Both are fixed here; reading, writing and computing stay NeMo's.
"""

import sys
from pathlib import Path

import nemo.lightning.io as nemo_io
import nemo.lightning.io.pl as nemo_checkpoint_io
import torch
from megatron.core.fusions import fused_softmax
from megatron.core.models.common.embeddings import rope_utils
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer import torch_norm
from nemo.collections import llm
from safetensors.torch import save_file

from megatron_ext.hardware import cpu_platform

_NORMS = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "pre_mlp_layernorm.weight",
}
_apply = nemo_io.apply_transforms


def _local(name):
    for fused, own in _NORMS.items():
        name = name.replace(fused, own)
    return name


def _apply_to_local_layers(source, target, mapping, transforms=None, **options):
    return _apply(
        source,
        target,
        mapping={_local(a): _local(b) for a, b in mapping.items()},
        transforms=transforms,
        **options,
    )


def _norm(_, config, hidden_size, eps=1e-5, *__, **___):
    return torch.nn.RMSNorm(hidden_size, eps=eps, dtype=config.params_dtype)


def _rotate(states, angles, interleaved):
    return rope_utils._apply_rotary_pos_emb_bshd(states, angles, rotary_interleaved=interleaved)


def prepare():
    cpu_platform.install()
    # moves what was loaded to the CUDA device
    nemo_checkpoint_io._fix_tensors_device = lambda checkpoint: checkpoint
    nemo_io.apply_transforms = _apply_to_local_layers
    rope_utils.fused_apply_rotary_pos_emb = _rotate
    # its cache cannot take the list that NeMo keeps a window as
    fused_softmax.get_sliding_window_causal_mask = (
        fused_softmax.get_sliding_window_causal_mask.__wrapped__
    )
    torch_norm.WrappedTorchNorm.__new__ = _norm


def write_logits(exporter, source, target):
    """Write 64 fixed token ids below 300 and the logits of NeMo's own model for them.

    The model is loaded by NeMo.
    """
    model, _ = exporter.nemo_load(source)
    model_parallel_cuda_manual_seed(0)  # the attention asks for a state, though dropout is off
    tokens = (torch.arange(64) * 37 % 300)[None]
    with torch.no_grad():
        logits = model.eval()(tokens, torch.arange(64)[None])
    save_file({"tokens": tokens, "logits": logits.contiguous()}, target)


def main(action, name, source, target):
    prepare()
    model = getattr(llm, name)
    if action == "import":
        model.importer(f"hf://{Path(source).resolve()}")(Path(target), overwrite=True)
    else:
        exporter = model.exporter("hf", source)
        exporter(Path(target), overwrite=True)
        write_logits(exporter, Path(source), Path(target) / "logits.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
