"""Folders of NeMo 2, written and read again.

They are also read as NeMo 2.7.3 writes them and, where NeMo is installed, compared with NeMo
itself.

NeMo needs an environment of its own (requirements-nemo.txt); GALEN_NEMO_PYTHON names its Python.
"""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from megatron.core.dist_checkpointing.strategies import torch as megatron_torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.metadata import Metadata

from checkpoints_convert import (
    describe,
    families,
    hf_to_megatron,
    megatron_to_hf,
    megatron_to_nemo,
    nemo_to_megatron,
)
from checkpoints_convert.interop import nemo_config
from galen import manifest
from galen.errors import DataError
from megatron_ext.checkpoint import safe_pickle

FAMILIES = {
    "llama-3.2": "LlamaModel",
    "mistral-v0.1": "MistralModel",
    "qwen2": "Qwen2Model",
    "qwen3": "Qwen3Model",
}


def same_weights(first, second):
    expected, actual = (
        load_file(first / "model.safetensors"),
        load_file(second / "model.safetensors"),
    )
    return actual.keys() == expected.keys() and all(
        actual[name].dtype == tensor.dtype and actual[name].equal(tensor)
        for name, tensor in expected.items()
    )


def as_nemo(hf, folder, *options):
    hf_to_megatron.main(["--hf", str(hf), "--output", str(folder / "megatron")])
    megatron_to_nemo.main(
        ["--megatron", str(folder / "megatron"), "--output", str(folder / "nemo"), *options]
    )
    return folder / "nemo"


def from_nemo(nemo, folder, *options):
    nemo_to_megatron.main(["--nemo", str(nemo), "--output", str(folder / "again"), *options])
    megatron_to_hf.main(["--megatron", str(folder / "again"), "--output", str(folder / "back")])
    return folder / "back"


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip(tmp_path, make_model, name):
    hf = make_model(name)
    back = from_nemo(as_nemo(hf, tmp_path), tmp_path, "--hf", str(hf))
    assert same_weights(hf, back)
    assert json.loads((back / "config.json").read_text()) == json.loads(
        (hf / "config.json").read_text()
    )
    assert (back / "tokenizer.json").read_bytes() == (hf / "tokenizer.json").read_bytes()


@pytest.fixture(scope="module")
def llama(make_model):
    return make_model("llama-3.2")


@pytest.fixture(scope="module")
def nemo(llama, tmp_path_factory):
    return as_nemo(llama, tmp_path_factory.mktemp("nemo"))


def test_the_layout_is_the_one_that_nemo_reads(nemo):
    assert {path.name for path in nemo.iterdir()} == {"weights", "context", "manifest.json"}
    names = safe_pickle.read_pickle(nemo / "weights" / ".metadata").state_dict_metadata
    assert names["module.decoder.layers.self_attention.linear_qkv.weight"].size == (4, 256, 64)
    assert all(name.startswith("module.") for name in names)
    objects = json.loads((nemo / "context" / "io.json").read_text())["objects"]
    config = next(value for value in objects.values() if "<root>.model.config" in value["paths"])
    values = {name: item.get("value") for name, item in config["items"]}
    assert values["Attr(name='scale_factor')"] == 32.0
    assert values["Attr(name='kv_channels')"] == 32
    assert (nemo / "context" / "nemo_tokenizer" / "tokenizer.json").is_file()


def test_described(nemo, capsys):
    capsys.readouterr()
    assert describe.main([str(nemo), "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["format"].startswith("NeMo 2")
    assert (
        description["family"],
        description["num_layers"],
        description["vocabulary rows, padded"],
        description["dtype"],
    ) == ("llama", 4, 384, "float32")


def test_an_internlm2_is_exported_as_a_llama(tmp_path, make_model):
    hf = make_model("internlm2")
    with pytest.raises(DataError, match=r"internlm2 models are not supported.*--as-family llama"):
        as_nemo(hf, tmp_path)
    shutil.rmtree(tmp_path / "megatron")
    assert same_weights(
        hf / "llama", from_nemo(as_nemo(hf, tmp_path, "--as-family", "llama"), tmp_path)
    )


def test_metadata_of_its_megatron_core(tmp_path, nemo, llama, monkeypatch):
    """Megatron Core 0.15 (NeMo 2.7) stores its own class instead of PyTorch's Metadata."""

    class MCoreMetadata(Metadata):
        pass

    MCoreMetadata.__module__, MCoreMetadata.__qualname__ = megatron_torch.__name__, "MCoreMetadata"
    monkeypatch.setattr(megatron_torch, "MCoreMetadata", MCoreMetadata, raising=False)
    shutil.copytree(nemo, tmp_path / "nemo")
    path = tmp_path / "nemo" / "weights" / ".metadata"
    written = safe_pickle.read_pickle(path)
    theirs = MCoreMetadata(**vars(written))
    theirs.mcore_data = {
        "module.decoder.layers.mlp.linear_fc1.weight": {
            "nd_reformulated_orig_global_shape": (4, 192, 64)
        }
    }
    path.write_bytes(pickle.dumps(theirs))
    (tmp_path / "nemo" / manifest.NAME).unlink()  # NeMo writes none
    monkeypatch.undo()
    assert same_weights(llama, from_nemo(tmp_path / "nemo", tmp_path))


def change(nemo, **fields):
    path = nemo / "context" / "model.yaml"
    content = yaml.safe_load(path.read_text())
    content["config"] |= fields
    path.write_text(yaml.safe_dump(content))


def plant(nemo):
    path = nemo / "context" / "model.yaml"
    path.write_text(
        f"_target_: !!python/object/apply:os.system ['touch {nemo / 'ran'}']\n" + path.read_text()
    )


def bomb(nemo):
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    (nemo / "context" / "model.yaml").write_text(
        "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n" + levels
    )


MISTAKES = {
    "aliases without end": (
        bomb,
        "does not describe a model of NeMo: .* expands to more than 50,000 values",
    ),
    "no context": (lambda nemo: shutil.rmtree(nemo / "context"), "is not a NeMo 2 checkpoint"),
    "code in model.yaml": (plant, "does not describe a model of NeMo"),
    "another model": (
        lambda nemo: (nemo / "context" / "model.yaml").write_text(
            "_target_: os.system\nconfig: {}"
        ),
        "the model os.system is not known; known: LlamaModel, MistralModel, Qwen2Model, Qwen3Model",
    ),
    "experts": (
        lambda nemo: change(nemo, num_moe_experts=8),
        r"num_moe_experts = 8 is not supported \(only None\)",
    ),
    "activation": (
        lambda nemo: change(nemo, activation_func={"_target_": "torch.nn.functional.gelu"}),
        "activation_func = 'torch.nn.functional.gelu' is not supported",
    ),
    "rotary scaling": (
        lambda nemo: change(nemo, low_freq_factor=2.0),
        r"low_freq_factor = 2\.0 is not supported",
    ),
    "another size": (
        lambda nemo: change(nemo, hidden_size=32),
        r"has the size \[384, 64\], the model requires \[384, 32\]",
    ),
    "no positions": (lambda nemo: change(nemo, seq_length=None), "seq_length is null.*give --hf"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_unsupported_fields_are_refused_by_name(tmp_path, nemo, name):
    damage, message = MISTAKES[name]
    shutil.copytree(nemo, tmp_path / "nemo")
    damage(tmp_path / "nemo")
    with pytest.raises(DataError, match=message):
        nemo_to_megatron.main(["--nemo", str(tmp_path / "nemo"), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "nemo" / "ran").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [("mistral-v0.3", {"rope_scaling_factor": 8.0}), ("qwen2", {"window_size": 16})],
)
def test_a_property_that_nemo_cannot_express_is_refused(make_model, name, change):
    _, architecture = families.find(make_model(name) / "config.json")
    (field, value), *_ = change.items()
    with pytest.raises(DataError, match=f"NeMo cannot express {field} = {value} of this"):
        nemo_config.arguments(dataclasses.replace(architecture, **change))


def test_another_models_configuration_is_refused(tmp_path, nemo, make_model):
    with pytest.raises(
        DataError, match=r"describes another model than .*: .*kv_channels is 16 instead of 32"
    ):
        nemo_to_megatron.main(
            ["--nemo", str(nemo), "--hf", str(make_model("llama-3")), "--output", str(tmp_path)]
        )


def test_started_again(tmp_path, llama, nemo, caplog):
    caplog.set_level("INFO")
    megatron_to_nemo.main(["--megatron", str(nemo.parent / "megatron"), "--output", str(nemo)])
    assert "already complete" in caplog.text


@pytest.fixture
def nemo_side():
    python = os.environ.get("GALEN_NEMO_PYTHON")
    if not python:
        pytest.skip(
            "GALEN_NEMO_PYTHON does not name the Python of an environment with NeMo"
            " (requirements-nemo.txt)"
        )

    def run(action, name, source, target):
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "TORCH_CUDA_ARCH_LIST": "9.0",
            "OMP_NUM_THREADS": "1",
        }
        environment["TORCHDYNAMO_DISABLE"] = "1"  # it does not know the stand-ins for torch.cuda
        command = [
            python,
            "-m",
            "tests.checkpoints_convert.nemo_side",
            action,
            name,
            str(source),
            str(target),
        ]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stdout[-2000:] + done.stderr[-6000:]

    return run


def readable_by_transformers_4(hf, target):
    """Copy a folder with the rotary fields named as in transformers 4, which NeMo 2.7 uses."""
    shutil.copytree(hf, target)
    config = json.loads((hf / "config.json").read_text())
    rope = config.pop("rope_parameters", {})
    config |= {
        "rope_theta": rope.pop("rope_theta", 10000.0),
        "rope_scaling": rope if rope.get("rope_type") == "llama3" else None,
    }
    (target / "config.json").write_text(
        json.dumps(config | {"torch_dtype": config.get("dtype", "float32")})
    )
    return target


def logits_of_transformers(hf, name, tokens):
    from transformers import AutoModelForCausalLM

    # NeMo keeps the window of Hugging Face as Megatron's, which lets a token attend to one more
    options = (
        {"sliding_window": json.loads((hf / "config.json").read_text())["sliding_window"] + 1}
        if name.startswith("mistral")
        else {}
    )
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32, **options)(
            tokens
        ).logits


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FAMILIES)
def test_with_nemo_itself(tmp_path, make_model, nemo_side, name):
    # NeMo's Qwen3 has no other
    hf = make_model(name, **({"head_dim": 128} if name == "qwen3" else {}))
    nemo_side(
        "import",
        FAMILIES[name],
        readable_by_transformers_4(hf, tmp_path / "hf"),
        tmp_path / "theirs",
    )
    assert same_weights(hf, from_nemo(tmp_path / "theirs", tmp_path))
    nemo_side("export", FAMILIES[name], as_nemo(tmp_path / "hf", tmp_path), tmp_path / "exported")
    assert same_weights(hf, tmp_path / "exported")
    computed = load_file(tmp_path / "exported" / "logits.safetensors")
    expected = logits_of_transformers(hf, name, computed["tokens"])
    difference = (computed["logits"][..., :300] - expected).abs().amax() / expected.abs().amax()
    print(f"{name}: largest difference of the logits of NeMo and transformers {difference:.2e}")
    assert difference < 1e-5
