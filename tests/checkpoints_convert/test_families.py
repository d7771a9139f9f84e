"""Every family: bit-exact round trip, equal function in Megatron, configurations.

These are supported or refused.
"""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import families, hf_to_megatron, megatron_to_hf
from checkpoints_convert.families import internlm2_reference
from galen.errors import DataError
from tests.checkpoints_convert import tiny_models
from tests.checkpoints_convert.tiny_models import FAMILIES, MOE
from tests.conftest import ROOT, run


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip_is_bit_identical(tmp_path, models, checkpoints, name):
    megatron_to_hf.main(["--megatron", str(checkpoints[name]), "--output", str(tmp_path / "back")])
    expected, actual = (
        load_file(models[name] / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    assert actual.keys() == expected.keys()
    assert all(actual[key].equal(tensor) for key, tensor in expected.items())
    before, after = (
        json.loads((folder / "config.json").read_text())
        for folder in (models[name], tmp_path / "back")
    )
    assert {**before, "torch_dtype": "float32"} == {**after, "torch_dtype": "float32"}


@pytest.mark.parametrize("name", [name for name in FAMILIES | MOE if name != "internlm2"])
def test_new_tokens_with_the_other_tying_of_embeddings(tmp_path, make_model, name):
    is_tied = (FAMILIES | MOE)[name].options.get("tie_word_embeddings", False)
    hf = make_model(name, tie_word_embeddings=not is_tied)
    (tmp_path / "tokens.txt").write_text("<gene>\n<drug>\n")
    options = ["--add-special-tokens", str(tmp_path / "tokens.txt")]
    megatron, back = (str(tmp_path / folder) for folder in ("megatron", "back"))
    hf_to_megatron.main(["--hf", str(hf), "--output", megatron, *options])
    megatron_to_hf.main(["--megatron", megatron, "--output", back])
    expected = load_file(hf / "model.safetensors")
    actual = load_file(tmp_path / "back" / "model.safetensors")
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        is_vocabulary = tensor.shape == (300, 64)
        assert actual[key].shape == ((302, 64) if is_vocabulary else tensor.shape)
        assert (actual[key][:300] if is_vocabulary else actual[key]).equal(tensor)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (302, not is_tied)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(300, (1, 64), generator=torch.Generator().manual_seed(1))


def test_the_window_matters(models, tokens):
    """test_family_matrix.py would not notice a lost window if it did not change the logits."""
    hf = models["mistral-v0.1"]
    without = json.loads((hf / "config.json").read_text()) | {"sliding_window": None}
    from transformers import AutoModelForCausalLM, MistralConfig

    with torch.no_grad():
        difference = AutoModelForCausalLM.from_pretrained(hf, config=MistralConfig(**without))(
            tokens
        ).logits - tiny_models.logits(hf, tokens)
    assert difference[:, :16].abs().max() < 1e-4
    assert difference[:, 16:].abs().max() > 0.1


@pytest.mark.parametrize(
    ("layer_type", "changes"),
    [
        ("full_attention", {"rope_type": "default"}),
        ("full_attention", {"attention_factor": 1.3}),
        ("sliding_attention", {"rope_theta": 500000.0}),
        ("layer_types", ["full_attention", *["sliding_attention"] * 3]),
    ],
)
def test_attention_of_each_layer_type_matters(models, tokens, layer_type, changes):
    """test_family_matrix.py would not notice a wrong layer of OLMo 3 otherwise."""
    from transformers import AutoModelForCausalLM, Olmo3Config

    hf = models["olmo3"]
    config = json.loads((hf / "config.json").read_text())
    if layer_type == "layer_types":
        config["layer_types"] = changes
    else:
        config["rope_parameters"][layer_type] |= changes
    model = AutoModelForCausalLM.from_pretrained(hf, config=Olmo3Config(**config))
    with torch.no_grad():
        difference = model(tokens).logits - tiny_models.logits(hf, tokens)
    assert difference.abs().max() > 0.1


def test_internlm2_reference_is_llama_under_other_names(models, tokens):
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(models["internlm2"] / "llama")(
            tokens
        ).logits
    torch.testing.assert_close(
        internlm2_reference.logits(models["internlm2"], tokens), expected, rtol=1e-5, atol=1e-5
    )


def test_internlm2_is_exported_in_llama_layout(tmp_path, models, checkpoints, tokens):
    from transformers import AutoModelForCausalLM

    megatron_to_hf.main(
        [
            "--megatron",
            str(checkpoints["internlm2"]),
            "--output",
            str(tmp_path / "llama"),
            "--as-family",
            "llama",
        ]
    )
    llama = models["internlm2"] / "llama"
    expected, actual = (
        load_file(llama / "model.safetensors"),
        load_file(tmp_path / "llama" / "model.safetensors"),
    )
    assert actual.keys() == expected.keys()
    assert all(actual[key].equal(tensor) for key, tensor in expected.items())
    with torch.no_grad():
        assert (
            AutoModelForCausalLM.from_pretrained(tmp_path / "llama")(tokens).logits.isfinite().all()
        )


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        (
            "qwen3",
            "llama",
            "qwen3 model cannot be written as llama: qk_layernorm is False instead of True",
        ),
        (
            "qwen3",
            "internlm2",
            "qwen3 model cannot be written as internlm2: kv_channels is 16 instead of 32",
        ),
        ("llama-3.2", "internlm2", "rotary scaling 'llama3' is not supported"),
        (
            "mistral-v0.1",
            "llama",
            "mistral model cannot be written as llama: window_size is None instead of 16",
        ),
    ],
)
def test_a_family_that_cannot_hold_the_model_is_refused(
    tmp_path, checkpoints, name, family, message
):
    with pytest.raises(DataError, match=message):
        megatron_to_hf.main(
            [
                "--megatron",
                str(checkpoints[name]),
                "--output",
                str(tmp_path / "x"),
                "--as-family",
                family,
            ]
        )


REFUSED = {
    "llama-2": [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"new_gate": 3},
        {"rope_interleaved": True},
    ],
    "llama-3.2": [
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2}},
    ],
    "mistral-v0.1": [{"attention_bias": True}],
    "qwen2": [
        {
            "use_sliding_window": True,
            "sliding_window": 8,
            "layer_types": ["chunked_attention"] * 4,
        }
    ],
    "qwen3": [{"attention_bias": True}],
    "olmo2": [{"attention_bias": True}, {"clip_qkv": 8.0}],
    "olmo3": [
        {"layer_types": None, "sliding_window": 0},
        {"rope_parameters": {"full_attention": {"rope_type": "longrope", "factor": 2.0}}},
        {"rope_parameters": None, "rope_theta": 1e6},
    ],
    "internlm2": [
        {"bias": True},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"head_dim": 8},
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_fields_are_refused_by_name(tmp_path, models, name):
    config = json.loads((models[name] / "config.json").read_text())
    for change in REFUSED[name]:
        if "rope_scaling" in change:
            config.pop("rope_parameters", None)
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        known = ("layer_types", "rope_parameters") if len(change) > 1 else ()
        field = re.escape(next(name for name in change if name not in known))
        field = {
            "rope_parameters": "longrope",
            "rope_scaling": "linear",
            "use_sliding_window": "chunked_attention",
        }.get(field, field)
        with pytest.raises(DataError, match=field):
            families.find(tmp_path / "config.json")


def test_llama3_scaling_has_the_constants_of_megatron(tmp_path, models):
    config = json.loads((models["llama-3.2"] / "config.json").read_text())
    config["rope_parameters"]["high_freq_factor"] = 8.0
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"high_freq_factor = 8\.0 is not supported"):
        families.find(tmp_path / "config.json")


@pytest.mark.slow
def test_a_new_family_is_one_file_and_one_line(tmp_path, models, tokens):
    """A family with names of its own needs a file and an entry in FAMILIES, nothing else."""
    copy = tmp_path / "repository"
    for room in ("checkpoints_convert", "megatron_ext", "galen"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    package = copy / "checkpoints_convert" / "families"
    source = (package / "internlm2.py").read_text()
    (package / "novel.py").write_text(
        source.replace("internlm2", "novel")
        .replace("tok_embeddings", "wte")
        .replace("attention.wo", "attention.out")
    )
    registry = package / "__init__.py"
    registry.write_text(
        registry.read_text()
        + '\nfrom checkpoints_convert.families import novel\nFAMILIES["novel"] = novel.FAMILY\n'
    )
    hf = tmp_path / "hf"
    shutil.copytree(models["internlm2"], hf, ignore=shutil.ignore_patterns("llama"))
    (hf / "config.json").write_text((hf / "config.json").read_text().replace("internlm2", "novel"))
    renamed = {
        key.replace("tok_embeddings", "wte").replace("attention.wo", "attention.out"): value
        for key, value in load_file(hf / "model.safetensors").items()
    }
    save_file(renamed, hf / "model.safetensors")
    (copy / "there_and_back.py").write_text(
        "import sys\nfrom checkpoints_convert import hf_to_megatron, megatron_to_hf\n"
        "hf_to_megatron.main(['--hf', sys.argv[1], '--output', sys.argv[2]])\n"
        "megatron_to_hf.main(['--megatron', sys.argv[2], '--output', sys.argv[3]])\n"
    )
    run(copy / "there_and_back.py", hf, tmp_path / "megatron", tmp_path / "back")
    actual = load_file(tmp_path / "back" / "model.safetensors")
    assert actual.keys() == renamed.keys()
    assert all(actual[key].equal(tensor) for key, tensor in renamed.items())
    assert "novel" not in families.FAMILIES
