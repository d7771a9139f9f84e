"""Tiny random models of every family, the tiny tokenizer, and processes with Megatron imported."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.megatron_ext.conftest import starter

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
    "initializer_range": 0.2,
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
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "attention_factor": 1.2,
}
FAMILIES = {
    "llama-2": ("llama", {"num_key_value_heads": 4}),
    "llama-3": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "llama-3.2": (
        "llama",
        {
            "tie_word_embeddings": True,
            "max_position_embeddings": 131072,
            "head_dim": 32,
            "rope_parameters": LLAMA3,
        },
    ),
    "mistral-v0.1": ("mistral", {"sliding_window": 16}),
    "mistral-v0.3": (
        "mistral",
        {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "internlm2": ("internlm2", {}),
    "olmo2": ("olmo2", {"tie_word_embeddings": True}),
    "olmo3": (
        "olmo3",
        {
            "sliding_window": 16,
            "rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_theta": 1e4}},
        },
    ),
    "gemma3": (
        "gemma3_text",
        {
            "tie_word_embeddings": True,
            "head_dim": 32,
            "query_pre_attn_scalar": 24,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "apertus": ("apertus", {"head_dim": 32, "rope_parameters": LLAMA3 | {"factor": 8.0}}),
    "phi-4": ("phi3", {"pad_token_id": 0}),
    "ministral-8b": (
        "ministral",
        {
            "head_dim": 16,
            "sliding_window": 16,
            "layer_types": ["full_attention", *["sliding_attention"] * 3],
        },
    ),
    "ministral-3": (
        "ministral3",
        {
            "pad_token_id": 0,
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
MOE = {
    "gpt-oss": (
        "gpt_oss",
        {
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
    "qwen3-moe": (
        "qwen3_moe",
        {"head_dim": 32, "num_experts": 4, "moe_intermediate_size": 48, "norm_topk_prob": True},
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "olmoe": ("olmoe", {"num_experts": 4, "num_key_value_heads": 4}),
    "qwen2-moe": (
        "qwen2_moe",
        {"num_experts": 4, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 80},
    ),
}
"""Mixtures of experts."""
for _, own in MOE.values():
    own["num_experts_per_tok"] = 2
UNREGISTERED = {
    "arcee": ("arcee", {"hidden_act": "relu2"}),
    "exaone4": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 4}),
}
"""Of tests/checkpoints_convert/unregistered_families.py."""


@pytest.fixture(scope="session")
def make_model(tmp_path_factory, tiny_tokenizer):
    """Make a folder with a random model of a family of FAMILIES, EXPERTS or UNREGISTERED.

    Its biases and norms are random too.
    """

    def make(name: str, **options) -> Path:
        from transformers import AutoConfig, AutoModelForCausalLM

        model_type, own = (FAMILIES | MOE | UNREGISTERED)[name]
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama" if model_type == "internlm2" else model_type, **(TINY | own | options)
        )
        model = AutoModelForCausalLM.from_config(config)
        for parameter, weight in model.named_parameters():
            if any(name in parameter for name in ("norm", "bias", "alpha", "sinks")):
                torch.nn.init.uniform_(weight, 0.5, 1.5)
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_tokenizer / file, folder / file)
        if model_type == "internlm2":
            llama = tmp_path_factory.mktemp("llama-of-internlm2")
            shutil.copytree(folder, llama, dirs_exist_ok=True)
            as_internlm2(folder)
            (folder / "llama").symlink_to(llama)
        return folder

    return make


@pytest.fixture(scope="session")
def start_side(tmp_path_factory):
    yield from starter(tmp_path_factory, "tests.checkpoints_convert.megatron_side")


@pytest.fixture(scope="session")
def megatron_side(start_side):
    """Run an action of megatron_side.py over so many forked processes."""

    def run(processes: int, *arguments: object) -> None:
        codes, written = start_side(processes, *arguments).wait()
        assert not any(codes), written[-6000:]

    return run


@pytest.fixture
def forked_logits(megatron_side, monkeypatch):
    """Run verify.py's other side in forked processes, which begin at once, not in new ones."""

    def run(command, **_):
        processes = (
            int(command[command.index("--nproc-per-node") + 1])
            if "--nproc-per-node" in command
            else 1
        )
        megatron_side(
            processes,
            "verify",
            *command[command.index("checkpoints_convert.conversion.megatron_logits") + 1 :],
        )
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)


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
