"""run_config.yaml describes the model as the original's configuration does.

Its fields are those of Megatron's own classes.
"""

import dataclasses
import inspect

import pytest
import torch
import yaml
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig

from checkpoints_convert import families
from checkpoints_convert.conversion import bridge_config

# Fields of Megatron-Bridge's GPTModelProvider (0.6.2) beyond those of Megatron Core's classes.
_OF_THE_PROVIDER = {"_target_", "seq_length", "should_pad_vocab", "make_vocab_size_divisible_by"}


@pytest.mark.parametrize("name", ["llama-3.2", "mistral-v0.1", "qwen2-window", "qwen3"])
def test_the_model_of_the_configuration(make_model, tmp_path, name):
    _, architecture = families.find(make_model(name) / "config.json")
    bridge_config.write(tmp_path, architecture, 2, torch.bfloat16)
    model = yaml.safe_load((tmp_path / "run_config.yaml").read_text())["model"]
    known = {field.name for field in dataclasses.fields(TransformerConfig)} | set(
        inspect.signature(GPTModel).parameters
    )
    assert set(model) <= known | _OF_THE_PROVIDER
    expected = architecture.transformer_config()
    for field in (
        "num_layers",
        "kv_channels",
        "num_query_groups",
        "layernorm_epsilon",
        "add_qkv_bias",
        "qk_layernorm",
        "normalization",
    ):
        assert model[field] == getattr(expected, field)
    assert model["window_size"] == (list(expected.window_size) if expected.window_size else None)
    assert model.get("window_attn_skip_freq") == expected.window_attn_skip_freq
    blocks = -(-model["vocab_size"] // model["make_vocab_size_divisible_by"])
    assert blocks * 256 == architecture.padded_vocab_size(2)
    assert model["rope_scaling_factor"] == (32.0 if name == "llama-3.2" else 1.0)
    assert (model["bf16"], model["params_dtype"]["_target_"]) == (True, "torch.bfloat16")
