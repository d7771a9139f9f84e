"""Gemma 3's config.json in all forms, and the text part of multimodal folders."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import families, hf_to_megatron, megatron_to_hf
from checkpoints_convert.families import gemma
from galen.errors import DataError

TEXT_1B = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 262144,
}
TEXT_27B = TEXT_1B | {
    "head_dim": 128,
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 62,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 168,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
MULTIMODAL_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}
"""As on the hub: everything else is a default of transformers."""


def test_layers_of_the_models_on_the_hub():
    model = gemma.architecture(TEXT_1B)
    assert model.window_attn_skip_freq == (*(1, 1, 1, 1, 1, 0) * 4, 1, 1)
    assert (model.window_size, model.local_rotary_base, model.rotary_base) == (512, 1e4, 1e6)
    assert model.softmax_scale is None  # that of the head size
    assert model.parameters == 999_885_952
    large = gemma.architecture(TEXT_27B)
    assert large.softmax_scale == 168**-0.5
    assert large.seq_len_interpolation_factor == 8.0
    assert large.parameters == 27_009_002_240


@pytest.mark.parametrize(
    "config", [TEXT_1B, TEXT_27B, gemma.text_config(MULTIMODAL_4B)], ids=["1B", "27B", "4B"]
)
def test_transformers_reads_and_writes_the_same_model(config):
    """The old fields, those that transformers 5 writes, and ours are one model."""
    from transformers import AutoConfig

    expected = gemma.architecture(config)
    for fields in (config, gemma.config(expected)):
        saved = AutoConfig.for_model(**fields).to_dict()
        assert "rope_theta" not in saved
        assert gemma.architecture(saved) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"hidden_activation": "gelu"}, "hidden_activation = 'gelu'"),
        ({"layer_types": ["chunked_attention"] * 26}, "layer_types: 'chunked_attention'"),
        ({"layer_types": ["sliding_attention"]}, "lists 1 layers, num_layers is 26"),
        ({"sliding_window": None}, "sliding_window is missing"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar = 0"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "rope_parameters: 'rope_theta'",
        ),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 8.0}}},
            "rope_parameters: sliding_attention = .* is not supported",
        ),
        ({"new_gate": 3}, "new_gate = 3"),
    ],
)
def test_what_changes_the_function_is_refused_by_name(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(TEXT_1B | change))
    with pytest.raises(DataError, match=message):
        families.find(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("change", "message"), [({"new_gate": 3}, "new_gate = 3"), ({"text_config": None}, "text_con")]
)
def test_fields_of_a_multimodal_folder_are_refused_by_name(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(MULTIMODAL_4B | change))
    with pytest.raises(DataError, match=message):
        families.find(tmp_path / "config.json")


@pytest.fixture(scope="module")
def multimodal(make_model, tmp_path_factory):
    """A text folder, and a multimodal one with the same text model in the layout of the hub."""
    text = make_model("gemma3")
    folder = tmp_path_factory.mktemp("multimodal")
    shutil.copytree(text, folder, dirs_exist_ok=True)
    config = json.loads((text / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(MULTIMODAL_4B | {"text_config": config, "eos_token_id": 0, "bos_token_id": 0})
    )
    (folder / "preprocessor_config.json").write_text("{}")
    tensors = load_file(text / "model.safetensors")
    tensors = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    vision = {
        "vision_tower.vision_model.post_layernorm.bias": torch.ones(2),
        "multi_modal_projector.mm_soft_emb_norm.weight": torch.ones(2),
    }
    save_file(tensors | vision, folder / "model.safetensors")
    return text, folder


def test_the_text_part_of_a_multimodal_folder(tmp_path, multimodal, caplog):
    text, folder = multimodal
    caplog.set_level(logging.INFO)
    checkpoint = tmp_path / "megatron"
    hf_to_megatron.main(["--hf", str(folder), "--output", str(checkpoint)])
    assert "2 tensors are left out (multi_modal_projector, vision_tower)" in caplog.text
    expected = load_file(text / "model.safetensors")
    for own in ([], ["--hf", str(folder)]):
        output = tmp_path / f"exported{len(own)}"
        megatron_to_hf.main(["--megatron", str(checkpoint), "--output", str(output), *own])
        actual = load_file(output / "model.safetensors")
        assert actual.keys() == expected.keys()
        assert all(actual[name].equal(tensor) for name, tensor in expected.items())
        config = json.loads((output / "config.json").read_text())
        assert config["model_type"] == "gemma3_text"
        assert config["architectures"] == ["Gemma3ForCausalLM"]
        assert not (output / "preprocessor_config.json").exists()
        assert (output / "tokenizer.json").read_bytes() == (text / "tokenizer.json").read_bytes()
        assert families.find(output / "config.json") == families.find(text / "config.json")


def test_the_other_layout_of_multimodal_tensors(tmp_path, multimodal):
    """As in the model of transformers, which versions 4.52 and later save without renaming."""
    text, folder = multimodal
    renamed = tmp_path / "hf"
    shutil.copytree(folder, renamed)
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        other = name.replace("language_model.model.", "language_model.")
        tensors[f"model.{other}"] = tensor
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    save_file(tensors, renamed / "model.safetensors")
    hf_to_megatron.main(["--hf", str(renamed), "--output", str(tmp_path / "megatron")])
    output = tmp_path / "exported"
    megatron_to_hf.main(["--megatron", str(tmp_path / "megatron"), "--output", str(output)])
    expected = load_file(text / "model.safetensors")
    actual = load_file(output / "model.safetensors")
    assert all(actual[name].equal(tensor) for name, tensor in expected.items())
