"""InternLM2's forward pass in plain PyTorch, from the files alone, for verify.py.

Written after the published description of the model (grouped `wqkv`, `w2(silu(w1 x) * w3 x)`,
rotary positions by halves); it shares no code with the mappings or with Megatron.
"""

from pathlib import Path

import torch
from torch import Tensor

from checkpoints_convert.hf.weights import Weights
from galen import json_file


def logits(folder: str | Path, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the logits [batch, sequence, vocabulary] of an InternLM2 folder.

    One layer is in memory at a time.
    """
    config = json_file.read_object(Path(folder) / "config.json")
    weights = Weights(folder)

    def weight(name: str) -> Tensor:
        return weights.read(f"{name}.weight").to(dtype)

    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    size = config["hidden_size"] // heads
    rotation = _rotation(tokens.size(1), size, config.get("rope_theta", 10000.0), dtype)
    x = weight("model.tok_embeddings")[tokens]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        h = _rms_norm(x, weight(name + "attention_norm"), config["rms_norm_eps"])
        # batch sequence group head size
        fused = (h @ weight(name + "attention.wqkv").T).unflatten(
            -1, (groups, heads // groups + 2, size)
        )
        query = fused[..., :-2, :].flatten(2, 3).transpose(1, 2)
        key, value = (
            fused[..., index, :].repeat_interleave(heads // groups, dim=2).transpose(1, 2)
            for index in (-2, -1)
        )
        scores = _rotate(query, *rotation) @ _rotate(key, *rotation).transpose(-1, -2) / size**0.5
        future = torch.ones(tokens.size(1), tokens.size(1), dtype=torch.bool).triu(1)
        context = (
            scores.masked_fill(future, float("-inf")).softmax(-1, dtype=torch.float32).to(dtype)
            @ value
        )
        x = x + context.transpose(1, 2).flatten(2) @ weight(name + "attention.wo").T
        h = _rms_norm(x, weight(name + "ffn_norm"), config["rms_norm_eps"])
        gate = h @ weight(name + "feed_forward.w1").T
        up = h @ weight(name + "feed_forward.w3").T
        x = x + (torch.nn.functional.silu(gate) * up) @ weight(name + "feed_forward.w2").T
    x = _rms_norm(x, weight("model.norm"), config["rms_norm_eps"])
    return x @ weight("model.tok_embeddings" if config.get("tie_word_embeddings") else "output").T


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    x32 = x.float()
    return weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype)


def _rotation(length: int, size: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine
