"""A tiny random model of each family: an entry of FAMILIES is all that its tests need."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import families
from tests.checkpoints_convert import layouts

TINY = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,  # its embedding would be zero and have no gradient
    "initializer_range": 0.1,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclasses.dataclass(frozen=True)
class TinyModel:
    """A configuration of transformers with random weights."""

    model_type: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of its config.json besides TINY."""
    seed: int = 0
    layouts: tuple[str, ...] = layouts.DENSE
    """At which the family matrix computes it."""
    same_function: str | None = None
    """Another entry with the same architecture up to names and the rotary base.

    One layout is enough then.
    """


YARN = {
    "rope_type": "yarn",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "attention_factor": 1.2,
}
TWO_LAYERS = {"num_hidden_layers": 2}
FAMILIES = {
    "llama-2": TinyModel("llama", TWO_LAYERS | {"num_key_value_heads": 4}),
    "llama-3": TinyModel(
        "llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    ),
    "llama-3.2": TinyModel(
        "llama",
        {
            "tie_word_embeddings": True,
            "max_position_embeddings": 131072,
            "head_dim": 32,
            "rope_parameters": LLAMA3,
        },
    ),
    "mistral-v0.1": TinyModel("mistral", {"sliding_window": 16}),
    "mistral-v0.3": TinyModel(
        "mistral",
        {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        layouts=("TP1",),
        same_function="llama-3",
    ),
    "qwen2": TinyModel("qwen2"),
    "qwen2-tied": TinyModel("qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "qwen3": TinyModel("qwen3", TWO_LAYERS | {"head_dim": 32}),
    "qwen2-window": TinyModel(
        "qwen2",
        TWO_LAYERS | {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "internlm2": TinyModel("internlm2", layouts=("TP1",), same_function="llama-3"),
    "olmo2": TinyModel("olmo2", TWO_LAYERS | {"tie_word_embeddings": True}),
    "olmo3": TinyModel(
        "olmo3",
        {
            "sliding_window": 16,
            "rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_theta": 1e4}},
        },
    ),
    "gemma3": TinyModel(
        "gemma3_text",
        TWO_LAYERS
        | {
            "tie_word_embeddings": True,
            "head_dim": 32,
            "query_pre_attn_scalar": 24,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "apertus": TinyModel(
        "apertus",
        TWO_LAYERS | {"head_dim": 32, "rope_parameters": LLAMA3 | {"factor": 8.0}},
        # with seed 0, rounding moves an input of xIELU over its edge at -1e-6
        seed=1,
    ),
    "phi-4": TinyModel("phi3", {"rms_norm_eps": 1e-6}, same_function="llama-3"),
    "phi-4-mini": TinyModel(
        "phi3",
        TWO_LAYERS
        | {
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.1, 1.3, 1.7, 2.5, 4.0],
                "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            },
        },
    ),
    "ministral-8b": TinyModel(
        "ministral",
        TWO_LAYERS
        | {
            "head_dim": 16,
            "sliding_window": 16,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "ministral-3": TinyModel(
        "ministral3",
        TWO_LAYERS
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    ),
}
EXPERTS = TWO_LAYERS | {"num_experts_per_tok": 2}
MOE = {
    "gpt-oss": TinyModel(
        "gpt_oss",
        layouts=layouts.COMPLETE_EXPERTS,
        options=EXPERTS
        | {
            "head_dim": 32,
            "sliding_window": 16,
            "num_local_experts": 4,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "qwen3-moe": TinyModel(
        "qwen3_moe",
        layouts=layouts.EXPERTS,
        options=EXPERTS
        | {
            "head_dim": 32,
            "num_experts": 4,
            "moe_intermediate_size": 48,
            "norm_topk_prob": True,
        },
    ),
    "mixtral": TinyModel(
        "mixtral", layouts=layouts.EXPERTS, options=EXPERTS | {"num_local_experts": 4}
    ),
    "olmoe": TinyModel(
        "olmoe",
        layouts=layouts.EXPERTS,
        options=EXPERTS | {"num_experts": 4, "num_key_value_heads": 4},
    ),
    "qwen2-moe": TinyModel(
        "qwen2_moe",
        layouts=layouts.EXPERTS,
        options=EXPERTS
        | {
            "num_experts": 4,
            "moe_intermediate_size": 48,
            "shared_expert_intermediate_size": 80,
        },
    ),
}
"""Mixtures of experts."""
UNREGISTERED = {
    "arcee": TinyModel("arcee", TWO_LAYERS | {"hidden_act": "relu2", "head_dim": 32}),
    "exaone4": TinyModel(
        "exaone4",
        TWO_LAYERS
        | {"sliding_window": None, "layer_types": ["full_attention"] * 2, "head_dim": 32},
    ),
}
"""Of tests/checkpoints_convert/unregistered_families.py."""


def make(folder: Path, name: str, tokenizer: Path, **options) -> None:
    """Write a random model, and a tokenizer, into a folder.

    Norms, biases and all other vectors get random differences from their initial values, with which
    a norm at a wrong place or a lost bias would change nothing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny = (FAMILIES | MOE | UNREGISTERED)[name]
    torch.manual_seed(tiny.seed)
    config = AutoConfig.for_model(
        "llama" if tiny.model_type == "internlm2" else tiny.model_type,
        **(TINY | tiny.options | options),
    )
    model = AutoModelForCausalLM.from_config(config)
    for parameter, weight in model.named_parameters():
        if weight.ndim == 1 or "bias" in parameter:
            weight.data += torch.empty_like(weight).uniform_(-0.5, 0.5)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    if tiny.model_type == "internlm2":
        llama = folder.with_name(f"{folder.name}-llama")
        shutil.copytree(folder, llama)
        as_internlm2(folder)
        (folder / "llama").symlink_to(llama)


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the family's own code computes in fp32, with eager attention."""

    logits: torch.Tensor
    """[batch, sequence, vocabulary]."""
    loss: float
    """Mean over the tokens."""
    grad_norm: float | None
    """Of the loss; None where that code is for inference only."""


def logits(hf: Path, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits of token ids [batch, sequence] by the family's own code."""
    from checkpoints_convert.families import internlm2_reference

    if (hf / "llama").is_symlink():
        return internlm2_reference.logits(hf, tokens)
    with torch.no_grad():
        return _load(hf)(tokens).logits


def reference(hf: Path, tokens: torch.Tensor, *bounds: int) -> Reference:
    """Return what the family's own code computes for ids [batch, sequence + 1].

    The last id of a sequence is a label only. From each of `bounds` on, a sequence is another
    document, which is computed alone.
    """
    inputs = tokens[:, :-1].tensor_split(bounds, 1)
    labels = tokens[:, 1:].flatten()
    is_internlm2 = (hf / "llama").is_symlink()
    model = None if is_internlm2 else _load(hf)
    parts = [model(part).logits if model else logits(hf, part) for part in inputs]
    computed = torch.cat(parts, 1)
    loss = torch.nn.functional.cross_entropy(computed.flatten(0, 1), labels)
    if model is None:
        return Reference(computed, loss.item(), None)
    loss.backward()
    grad_norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
    return Reference(computed.detach(), loss.item(), float(grad_norm))


def _load(hf: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(hf, attn_implementation="eager")


def register(patch) -> None:
    """Register the families of UNREGISTERED in a MonkeyPatch."""
    from tests.checkpoints_convert.unregistered_families import ARCEE, EXAONE4

    for family in (ARCEE, EXAONE4):
        patch.setitem(families.FAMILIES, family.name, family)


def as_internlm2(folder: Path) -> None:
    """Rewrite a Llama folder under InternLM2's names, fusing heads one by one.

    It is slow, and unlike the converter.
    """
    config = json.loads((folder / "config.json").read_text())
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["hidden_size"] // heads
    old, new = load_file(folder / "model.safetensors"), {}
    new["model.tok_embeddings.weight"] = old["model.embed_tokens.weight"]
    new["model.norm.weight"] = old["model.norm.weight"]
    new["output.weight"] = old["lm_head.weight"]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        attention = {part: old[f"{name}.self_attn.{part}_proj.weight"] for part in "qkvo"}
        fused = []
        for group in range(groups):
            fused += [
                attention["q"][head * size : (head + 1) * size]
                for head in range(heads)
                if head // (heads // groups) == group
            ]
            fused += [attention[part][group * size : (group + 1) * size] for part in "kv"]
        new[f"{name}.attention.wqkv.weight"] = torch.cat(fused)
        new[f"{name}.attention.wo.weight"] = attention["o"]
        for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down")):
            new[f"{name}.feed_forward.{theirs}.weight"] = old[f"{name}.mlp.{ours}_proj.weight"]
        new[f"{name}.attention_norm.weight"] = old[f"{name}.input_layernorm.weight"]
        new[f"{name}.ffn_norm.weight"] = old[f"{name}.post_attention_layernorm.weight"]
    save_file(new, folder / "model.safetensors", metadata={"format": "pt"})
    config_fields = {
        key: value
        for key, value in config.items()
        if key not in ("attention_bias", "mlp_bias", "rope_parameters", "head_dim")
    }
    config_fields |= {
        "model_type": "internlm2",
        "architectures": ["InternLM2ForCausalLM"],
        "bias": False,
    }
    config_fields |= {
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "attn_implementation": "eager",
    }
    (folder / "config.json").write_text(json.dumps(config_fields))
