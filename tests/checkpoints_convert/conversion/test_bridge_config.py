"""run_config.yaml describes the model as the original's configuration does.

Its fields are those of Megatron's own classes.
"""

import dataclasses
import importlib
import inspect
import json

import pytest
import torch
import yaml
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from pydantic import TypeAdapter

from checkpoints_convert import families
from checkpoints_convert.conversion import bridge_config
from megatron_ext.config.architecture import Architecture
from tests.checkpoints_convert.conversion import test_interop_target
from tests.conftest import ROOT

# Fields of Megatron-Bridge's GPTModelProvider (0.6.2) beyond those of Megatron Core's classes.
_OF_THE_PROVIDER = {
    *("_target_", "seq_length", "should_pad_vocab", "make_vocab_size_divisible_by"),
    *("yarn_rotary_scaling_factor", "yarn_original_max_position_embeddings"),
    *("yarn_beta_fast", "yarn_beta_slow", "yarn_mscale", "yarn_mscale_all_dim"),
    "yarn_correction_range_round_to_int",
}


def known_fields() -> set[str]:
    core = {field.name for field in dataclasses.fields(TransformerConfig)}
    return core | set(inspect.signature(GPTModel).parameters) | _OF_THE_PROVIDER


@pytest.mark.parametrize("name", sorted(bridge_config.TARGET.supports))
def test_the_fields_of_a_property_exist(name):
    """Megatron Core accepts their values, too."""
    written = test_interop_target.bridge_model(test_interop_target.model(name))
    assert set(written) <= known_fields()
    module, _, function = written["activation_func"]["_target_"].rpartition(".")
    core = {field.name for field in dataclasses.fields(TransformerConfig)}
    values = {field: value for field, value in written.items() if field in core}
    values["activation_func"] = getattr(importlib.import_module(module), function)
    values["params_dtype"] = torch.bfloat16
    values["autocast_dtype"] = torch.bfloat16
    TransformerConfig(**values)


@pytest.mark.parametrize("name", ["llama-3.2", "mistral-v0.1", "qwen2-window", "qwen3"])
def test_the_model_of_the_configuration(make_model, tmp_path, name):
    _, architecture = families.find(make_model(name) / "config.json")
    bridge_config.write(tmp_path, architecture, 2, torch.bfloat16)
    model = yaml.safe_load((tmp_path / "run_config.yaml").read_text())["model"]
    assert set(model) <= known_fields()
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


def test_gemma_3_has_the_fields_of_its_own_provider():
    """Compared with what Megatron-Bridge 0.6.2 makes of the same config.json (docs)."""
    text = (ROOT / "examples/pretrain/architectures/gemma3_27b.json").read_text()
    architecture = TypeAdapter(Architecture).validate_python(json.loads(text))
    model = bridge_config.run_config(architecture, 1, torch.bfloat16)["model"]
    assert model["_target_"].endswith(".gemma3_provider.Gemma3ModelProvider")
    assert (model["rotary_base"], model["rope_scaling_factor"]) == ([1e4, 1e6], 8.0)
    assert model["seq_len_interpolation_factor"] is None  # else Bridge would scale twice
    assert (model["window_size"], model["interleaved_attn_pattern"]) == (1024, [5, 1])
    assert model["softmax_scale"] == 168**-0.5
    assert model["layernorm_zero_centered_gamma"]
    layers = (1, 0) * 31
    for changes in (
        {"window_attn_skip_freq": layers},
        {"window_attn_skip_freq": None, "local_rotary_base": None},
    ):
        other = dataclasses.replace(architecture, **changes)
        assert bridge_config.GEMMA3_TARGET.refusal(other)
