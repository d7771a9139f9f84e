"""The config.json of published models: read, written, and the number of their parameters."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from checkpoints_convert import families
from checkpoints_convert.conversion import export_hf
from checkpoints_convert.families import hf_config
from galen.errors import DataError
from tests.checkpoints_convert import tiny_models

MODELS = yaml.safe_load(Path(__file__).with_name("published_models.yaml").read_text())["models"]


# the published factors are not needed here
FACTORS = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
MODELS["Phi-4-mini-instruct"]["config"]["rope_scaling"] = FACTORS
UNNAMED_POSITIONS = dict(MODELS["Apertus-8B-2509"]["config"]["rope_scaling"])
del UNNAMED_POSITIONS["original_max_position_embeddings"]


def find(folder, config):
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return families.find(path)


def tiny_config(family):
    """Return the config.json of a family's tiny model."""
    from transformers import AutoConfig

    models = tiny_models.FAMILIES | tiny_models.MOE
    tiny = next(model for model in models.values() if model.model_type == family)
    return AutoConfig.for_model(family, **(tiny_models.TINY | tiny.options)).to_dict()


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_published_number(tmp_path, name):
    model = MODELS[name]
    family, architecture = find(tmp_path, model["config"])
    published = model["parameters"]
    if isinstance(published, int):
        assert architecture.parameters == published
    else:
        assert architecture.parameters == pytest.approx(float(published), rel=5e-4)
    active = float(model.get("active_parameters", published))
    assert architecture.active_parameters == pytest.approx(active, rel=0.03)
    assert find(tmp_path, family.config(architecture)) == (family, architecture)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "Apertus-8B-2509",
            {"rope_scaling": None},
            "rope_scaling is missing: transformers 5 then computes Llama 3's scaling",
        ),
        ("Apertus-8B-2509", {"hidden_act": "silu"}, "hidden_act = 'silu' is not supported"),
        ("Apertus-8B-2509", {"qk_norm": False}, "qk_norm = False is not supported"),
        (
            "Phi-4-mini-instruct",
            {"partial_rotary_factor": 1.0},
            "longrope: short_factor must list 64 factors",
        ),
        (
            "phi-4",
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "'llama3' is not supported (Phi's code knows 'longrope' only); export a model",
        ),
        (
            "Ministral-8B-Instruct-2410",
            {"layer_types": ["full_attention", "sliding_attention"] * 18},
            "layer_types = ",
        ),
        (
            "Ministral-8B-Instruct-2410",
            {"model_type": "ministral", "layer_types": ["full_attention", "sliding_attention"]},
            "window_attn_skip_freq lists 2 layers, num_layers is 36",
        ),
        ("Olmo-3-1025-7B", {"rope_theta": 1e6}, "rope_theta = 1000000.0 is ambiguous"),
        ("Olmo-3-1025-7B", {"layer_types": ["full_attention"]}, "layer_types lists 1 layers"),
        (
            "Olmo-3-1025-7B",
            {"rope_scaling": None, "rope_parameters": {"rope_type": "default"}},
            "it lacks full_attention",
        ),
        (
            "Apertus-8B-2509",
            {"rope_scaling": UNNAMED_POSITIONS},
            "original_max_position_embeddings = 65536 is not supported (only 8192)",
        ),
        (
            "Apertus-8B-2509",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "contradicts rope_parameters = {",
        ),
        (
            "Phi-4-mini-instruct",
            {"sliding_window": True},
            "sliding_window = True must be a positive integer",
        ),
        (
            "Qwen3-30B-A3B",
            {"norm_topk_prob": None},
            "norm_topk_prob = None must be true or false",
        ),
        (
            "Ministral-3-8B text",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "(only with llama_4_scaling_beta)",
        ),
    ],
)
def test_what_changes_the_function_is_refused_by_name(tmp_path, name, changes, message):
    with pytest.raises(DataError, match=re.escape(message)):
        find(tmp_path, MODELS[name]["config"] | changes)


@pytest.mark.parametrize(
    ("name", "changes", "removed", "expected"),
    [
        ("Apertus-8B-2509", {}, ["rope_theta"], {"rotary_base": 12e6}),
        ("Qwen3-30B-A3B", {}, ["num_key_value_heads"], {"num_query_groups": 4}),
        ("Qwen3-30B-A3B", {"num_key_value_heads": None}, [], {"num_query_groups": 32}),
        ("Qwen3-14B", {"num_key_value_heads": None}, [], {"num_query_groups": 40}),
        (
            "Qwen3-8B",
            {"use_sliding_window": True, "max_window_layers": 0},
            ["sliding_window"],
            {"window_size": 4096},
        ),
    ],
)
def test_missing_fields_have_the_defaults_of_transformers(
    tmp_path, name, changes, removed, expected
):
    config = MODELS[name]["config"] | changes
    for field in removed:
        del config[field]
    _, architecture = find(tmp_path, config)
    assert {field: getattr(architecture, field) for field in expected} == expected


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_oss", "ministral", "olmo3"])
def test_a_model_without_windows_loads_in_transformers(tmp_path, family):
    from transformers import AutoConfig, AutoModelForCausalLM

    _, windowed = find(tmp_path, tiny_config(family))
    plain = {"window_size": None, "window_attn_skip_freq": None, "local_rotary_base": None}
    architecture = dataclasses.replace(windowed, **plain)
    config = families.FAMILIES[family].config(architecture)
    assert find(tmp_path, config)[1] == architecture
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_positions_beside_longrope_are_those_of_transformers(tmp_path):
    config = dict(MODELS["Phi-4-mini-instruct"]["config"])
    original = config.pop("original_max_position_embeddings")
    assert find(tmp_path, config)[1].longrope.original_max_position_embeddings == original
    config["rope_scaling"] = config["rope_scaling"] | {"original_max_position_embeddings": 64}
    with pytest.raises(DataError, match="= 64 in the rotary scaling has no effect"):
        find(tmp_path, config)


def test_ministral_has_a_window_by_layer(tmp_path):
    types = ["full_attention", *["sliding_attention"] * 3] * 9
    config = MODELS["Ministral-8B-Instruct-2410"]["config"]
    config = config | {"model_type": "ministral", "layer_types": types}
    family, architecture = find(tmp_path, config)
    assert architecture.window_attn_skip_freq == (0, 1, 1, 1) * 9
    assert find(tmp_path, family.config(architecture)) == (family, architecture)
    for one in ("full_attention", "sliding_attention"):
        family, architecture = find(tmp_path, config | {"layer_types": [one] * 36})
        assert architecture.window_attn_skip_freq is None
        assert architecture.window_size == (32768 if one == "sliding_attention" else None)
        assert find(tmp_path, family.config(architecture)) == (family, architecture)


def test_only_full_attention_of_olmo3_is_scaled(tmp_path):
    config = MODELS["Olmo-3-1025-7B"]["config"]
    _, architecture = find(tmp_path, config)
    assert architecture.window_attn_skip_freq == (1, 1, 1, 0) * 8
    assert architecture.local_rotary_base == architecture.rotary_base == 500_000
    assert architecture.yarn.factor == 8
    plain = {"rope_type": "default", "rope_theta": 500_000.0}
    full = plain | config["rope_scaling"]
    # as transformers 5 writes it
    newer = {name: value for name, value in config.items() if not name.startswith("rope_")}
    newer["rope_parameters"] = {"full_attention": full, "sliding_attention": plain}
    assert find(tmp_path, newer)[1] == architecture
    newer["rope_parameters"] = {"full_attention": full, "sliding_attention": full}
    assert find(tmp_path, newer)[1].local_rotary_base is None


def mistral3(text, **others):
    """Return the config.json of a multimodal folder with the fields of a published text model."""
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "image_token_index": 10,
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": {name: value for name, value in text.items() if name != "architectures"},
        "torch_dtype": "bfloat16",
        "vision_config": {"model_type": "pixtral", "hidden_size": 1024},
        "vision_feature_layer": -1,
        **others,
    }


@pytest.mark.parametrize("name", ["Mistral-Small-24B-Base-2501", "Ministral-3-3B text"])
def test_the_text_model_of_a_multimodal_folder(tmp_path, name):
    text = MODELS[name]["config"]
    family, expected = find(tmp_path, text)
    multimodal, architecture = find(tmp_path, mistral3(text))
    assert (multimodal.name, architecture) == (family.name, expected)
    written = families.text_config(tmp_path / "config.json")
    assert written["model_type"] == family.name
    assert find(tmp_path, written) == (family, expected)
    assert multimodal.text_tensor("language_model.model.norm.weight") == "model.norm.weight"
    assert multimodal.text_tensor("vision_tower.ln_pre.weight") is None


def test_a_multimodal_folder_is_refused_by_name(tmp_path):
    text = MODELS["Ministral-3-8B text"]["config"]
    with pytest.raises(
        DataError, match="FP8 weights are not supported; take the model's folder in"
    ):
        find(tmp_path, mistral3(text, quantization_config={"quant_method": "fp8"}))
    with pytest.raises(DataError, match="only model_type 'mistral' and 'ministral3'"):
        find(tmp_path, mistral3({"model_type": "mistral4"}))
    with pytest.raises(DataError, match="audio_config = "):
        find(tmp_path, mistral3(text, audio_config={"hidden_size": 1}))


@pytest.mark.parametrize("name", ["Ministral-3-8B text", "Phi-4-mini-instruct", "Apertus-8B-2509"])
@pytest.mark.parametrize("version", [4, 5])
def test_a_run_with_another_rotary_base_is_exported_with_it(tmp_path, name, version):
    config = MODELS[name]["config"]
    family, architecture = find(tmp_path, config)
    if version == 5:  # as transformers 5 saves it
        rope = config.get("rope_parameters") or config.get("rope_scaling")
        rope = {"rope_theta": config.get("rope_theta")} | rope
        if "partial_rotary_factor" in config:
            rope["partial_rotary_factor"] = config["partial_rotary_factor"]
        old = ("rope_theta", "rope_scaling", "partial_rotary_factor")
        config = {key: value for key, value in config.items() if key not in old}
        config["rope_parameters"] = rope
        assert find(tmp_path, config) == (family, architecture)
    changed = dataclasses.replace(architecture, rotary_base=7.0)
    assert export_hf._without_rope(changed) == export_hf._without_rope(architecture)
    written = hf_config.with_rope(config, family.config(changed))
    assert find(tmp_path, written) == (family, changed)
