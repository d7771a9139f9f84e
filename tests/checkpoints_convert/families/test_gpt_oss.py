"""gpt-oss: fused experts of the Hub, MXFP4, and the fields of config.json."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import families, hf_to_megatron, megatron_to_hf, verify
from checkpoints_convert.families import gpt_oss
from galen.errors import DataError
from tests.conftest import import_model

CONFIG = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 201088,
}
"""Of gpt-oss-20b on the Hub."""


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("gpt-oss", dtype="bfloat16")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    return import_model(model, tmp_path_factory.mktemp("megatron") / "gpt-oss")


def test_config_of_the_hub_goes_both_ways():
    architecture = gpt_oss.architecture(CONFIG)
    assert architecture.parameters == 20_914_757_184
    large = {"num_hidden_layers": 36, "num_local_experts": 128}
    large["layer_types"] = ["sliding_attention", "full_attention"] * 18
    assert gpt_oss.architecture(CONFIG | large).parameters == 116_829_156_672
    assert architecture.window_attn_skip_freq == (1, 0) * 12
    assert (architecture.moe_router_topk, architecture.num_moe_experts) == (4, 32)
    assert architecture.yarn is not None and not architecture.yarn.truncate
    assert gpt_oss.architecture(gpt_oss.config(architecture)) == architecture


def test_defaults_are_those_of_transformers():
    from transformers import GptOssConfig

    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    names = (*sizes, "num_attention_heads", "max_position_embeddings", "rms_norm_eps")
    config = GptOssConfig()
    brief = {name: getattr(config, name) for name in names}
    assert gpt_oss.architecture(brief) == gpt_oss.architecture(config.to_dict())


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"experts_per_token": 8}, "num_experts_per_tok = 4, experts_per_token = 8 contradict"),
        ({"initial_context_length": 8192}, "initial_context_length = 8192 contradicts"),
        ({"attention_bias": False}, "attention_bias = False is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        ({"swiglu_limit": None}, "swiglu_limit = None must be a number"),
        ({"swiglu_alpha": 1.0}, "swiglu_alpha = 1.0 is not supported"),
        ({"layer_types": ["full_attention"]}, "lists 1 layers, num_hidden_layers is 24"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quant_method 'fp8' is not supported"),
        ({"num_shared_experts": 1}, "num_shared_experts = 1: not known"),
    ],
)
def test_fields_that_change_the_function_are_refused_by_name(tmp_path, field, message):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | field))
    with pytest.raises(DataError, match=message):
        families.find(tmp_path / "config.json")


def encode(folder, source, damage=None):
    """Write a model with its experts in MXFP4 and return the tensors that transformers decodes."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    shutil.copytree(source, folder)
    tensors = {
        name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    generator = torch.Generator().manual_seed(0)
    decoded = {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        size = (experts, outputs, inputs // 32)
        blocks = torch.randint(0, 256, (*size, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(120, 126, size, generator=generator, dtype=torch.uint8)
        decoded[name] = convert_moe_packed_tensors(blocks, scales)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    expected = tensors | decoded
    if damage is not None:
        damage(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = CONFIG["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    return {
        name: tensor
        for name, tensor in expected.items()
        if not name.endswith(("_blocks", "_scales"))
    }


@pytest.mark.parametrize("chunk_bytes", [2**25, 4000])
def test_mxfp4_is_exported_as_transformers_decodes_it(
    tmp_path, model, monkeypatch, caplog, chunk_bytes
):
    from checkpoints_convert.conversion import weight_tasks

    monkeypatch.setattr(weight_tasks, "CHUNK_BYTES", chunk_bytes)
    caplog.set_level("INFO")
    expected = encode(tmp_path / "mxfp4", model)
    hf_to_megatron.main(["--hf", str(tmp_path / "mxfp4"), "--output", str(tmp_path / "megatron")])
    assert "MXFP4 is decoded; the checkpoint has bf16 weights" in caplog.text
    compare = ["--hf", str(tmp_path / "mxfp4"), "--megatron", str(tmp_path / "megatron")]
    assert verify.main([*compare, "--weights-only"]) == 0
    megatron_to_hf.main(
        ["--megatron", str(tmp_path / "megatron"), "--output", str(tmp_path / "exported")]
    )
    assert "quantization_config is removed from config.json" in caplog.text
    actual = load_file(tmp_path / "exported" / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == torch.bfloat16
        assert actual[name].equal(tensor), name
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"


def test_shards_of_an_export_have_complete_fused_tensors(tmp_path, model, checkpoint):
    megatron_to_hf.main(
        [
            *("--megatron", str(checkpoint), "--output", str(tmp_path / "exported")),
            *("--max-shard-bytes", "100000"),
        ]
    )
    actual = {}
    files = sorted((tmp_path / "exported").glob("*.safetensors"))
    assert len(files) > 4
    for file in files:
        actual |= load_file(file)
    expected = load_file(model / "model.safetensors")
    assert actual.keys() == expected.keys()
    assert all(actual[name].equal(tensor) for name, tensor in expected.items())


def _nan(tensors):
    tensors["model.layers.1.mlp.experts.down_proj_scales"][2, 5, 1] = 255


def _without_scales(tensors):
    del tensors["model.layers.1.mlp.experts.down_proj_scales"]


def _both(tensors):
    tensors["model.layers.1.mlp.experts.down_proj"] = torch.zeros(4, 96, 64)


def _wide(tensors):
    name = "model.layers.1.mlp.experts.down_proj_blocks"
    tensors[name] = tensors[name].flatten(2)


def _odd(tensors):
    name = "model.layers.1.mlp.experts.gate_up_proj_bias"
    tensors[name] = torch.cat([tensors[name], tensors[name][:, :1]], 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_odd, "gate_up_proj_bias has 193 outputs: gate and up alternate"),
        (_nan, r"model\.safetensors is damaged: .*layers\.1\..*down_proj_scales: .* is NaN"),
        (_without_scales, "holds .*down_proj_blocks without .*down_proj_scales"),
        (_both, "holds both .*down_proj and .*down_proj_blocks"),
        (_wide, r"down_proj_blocks \[4, 64, 48\] and its scales \[4, 64, 3\] are not MXFP4"),
    ],
)
def test_damaged_mxfp4_is_named(tmp_path, model, damage, message):
    encode(tmp_path / "mxfp4", model, damage)
    with pytest.raises(DataError, match=message):
        hf_to_megatron.main(
            ["--hf", str(tmp_path / "mxfp4"), "--output", str(tmp_path / "megatron")]
        )


def _swap_experts(tensors):
    matrix = tensors["model.layers.1.mlp.experts.down_proj"]
    tensors["model.layers.1.mlp.experts.down_proj"] = matrix[[0, 2, 1, 3]]


def _swap_gate_and_up(tensors):
    name = "model.layers.0.mlp.experts.gate_up_proj_bias"
    tensors[name] = tensors[name].unflatten(1, (-1, 2)).flip(2).flatten(1)


def _lose_sinks(tensors):
    tensors["model.layers.1.self_attn.sinks"].zero_()


def _lose_router_bias(tensors):
    tensors["model.layers.0.mlp.router.bias"].zero_()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_swap_experts, r"experts\.linear_fc2\.weight \(layer 1, expert 1\) is not"),
        (_swap_gate_and_up, r"experts\.linear_fc1\.bias \(layer 0, expert 0\) is not"),
        (_lose_sinks, r"core_attention\.softmax_offset \(layer 1\) is not .*\.self_attn\.sinks"),
        (_lose_router_bias, r"mlp\.router\.bias \(layer 0\) is not"),
    ],
)
def test_verify_names_what_differs(tmp_path, model, checkpoint, capsys, damage, message):
    shutil.copytree(model, tmp_path / "other")
    tensors = load_file(model / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    compare = ["--hf", str(tmp_path / "other"), "--megatron", str(checkpoint)]
    assert verify.main([*compare, "--weights-only"]) == 1
    assert re.search(message, capsys.readouterr().out)
