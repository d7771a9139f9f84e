"""Hugging Face to Megatron and back: the same files bit by bit."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from checkpoints_convert import families, hf_to_megatron, megatron_to_hf
from galen.errors import DataError
from tests.conftest import run

EXPORT = "checkpoints_convert/megatron_to_hf.py"


def import_model(hf, output):
    hf_to_megatron.main(["--hf", str(hf), "--output", str(output)])
    return output


def export_model(checkpoint, output, *options):
    megatron_to_hf.main(["--megatron", str(checkpoint), "--output", str(output), *options])
    return output


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"tie_word_embeddings": False, "num_key_value_heads": 1, "dtype": "bfloat16"}],
    ids=["tied", "untied"],
)
def test_weights_configuration_and_tokenizer_come_back(tmp_path, make_llama, options):
    hf = make_llama(**options)
    if options:
        AutoModelForCausalLM.from_pretrained(hf, dtype=torch.bfloat16).save_pretrained(hf)
        back = export_model(import_model(hf, tmp_path / "megatron"), tmp_path / "back")
    else:  # as a user would
        back = tmp_path / "back"
        run("checkpoints_convert/hf_to_megatron.py", "--hf", hf, "--output", tmp_path / "megatron")
        run(EXPORT, "--megatron", tmp_path / "megatron", "--output", back)
    expected, actual = load_file(hf / "model.safetensors"), load_file(back / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        assert actual[name].equal(tensor), name
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        assert (back / name).read_bytes() == (hf / name).read_bytes(), name
    assert AutoTokenizer.from_pretrained(back)("age <5 years")["input_ids"]
    assert (
        AutoModelForCausalLM.from_pretrained(back).num_parameters()
        == AutoModelForCausalLM.from_pretrained(hf).num_parameters()
    )


@pytest.mark.slow
def test_shards_have_an_index_that_is_true(tmp_path, tied_llama):
    export_model(
        import_model(tied_llama, tmp_path / "megatron"),
        tmp_path / "back",
        "--max-shard-bytes",
        "2e5",
    )
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "back" / file, "pt") as shard:
            assert name in shard.keys()  # noqa: SIM118
    expected = load_file(tied_llama / "model.safetensors")
    actual = AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(actual[name].equal(tensor) for name, tensor in expected.items())
    # and sharded folders are read, whatever else lies in them
    save_file({"norm.weight": torch.ones(64)}, tmp_path / "back" / "consolidated.safetensors")
    again = export_model(
        import_model(tmp_path / "back", tmp_path / "of-shards"), tmp_path / "again"
    )
    assert load_file(again / "model.safetensors").keys() == expected.keys()
    lost = next(iter(index["weight_map"].values()))
    (tmp_path / "back" / lost).unlink()
    with pytest.raises(DataError, match=f"names 1 missing files: {lost}"):
        import_model(tmp_path / "back", tmp_path / "of-too-few")


def test_started_again(tmp_path, tied_llama, untied_llama, caplog):
    caplog.set_level("INFO")
    checkpoint, back = import_model(tied_llama, tmp_path / "megatron"), tmp_path / "back"
    export_model(checkpoint, back)
    before = (back / "model.safetensors").stat().st_mtime_ns
    caplog.clear()
    import_model(tied_llama, checkpoint)
    export_model(checkpoint, back)
    assert caplog.text.count("already complete") == 2
    assert (back / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="belongs to another run"):
        import_model(untied_llama, checkpoint)


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def lose_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def mix_precisions(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors[
        "model.layers.2.mlp.up_proj.weight"
    ].bfloat16()
    save_file(tensors, folder / "model.safetensors")


def add_a_tensor(folder):
    save_file(
        load_file(folder / "model.safetensors")
        | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)},
        folder / "model.safetensors",
    )


KNOWN = sorted(families.FAMILIES | families.MULTIMODAL)
MISTAKES = {
    "no folder": (shutil.rmtree, "there is no model folder"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
    "unknown family": (
        lambda folder: change_config(folder, model_type="gpt2"),
        f"model_type 'gpt2' cannot be converted; known: {', '.join(KNOWN)}",
    ),
    "bias": (
        lambda folder: change_config(folder, attention_bias=True),
        "attention_bias = True is not supported",
    ),
    "activation": (
        lambda folder: change_config(folder, hidden_act="gelu"),
        "hidden_act = 'gelu' is not supported",
    ),
    "rotary scaling": (
        lambda folder: change_config(
            folder, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}
        ),
        "rotary scaling 'longrope' is not supported",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "holds no .safetensors file",
    ),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100),
        "is damaged",
    ),
    "pointers": (
        lambda folder: (folder / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        ),
        "git lfs pull",
    ),
    "a tensor less": (
        lose_a_tensor,
        "lacks 1 tensors that config.json calls for: model.layers.2.mlp.up_proj.weight",
    ),
    "two precisions in one tensor": (
        mix_precisions,
        "model.layers.2.mlp.up_proj.weight is bfloat16, but Megatron has them in one tensor",
    ),
    "a tensor more": (
        add_a_tensor,
        "a llama model has no such tensors (1): model.layers.0.self_attn.q_proj.bias",
    ),
    "tokenizer too large": (
        lambda folder: change_config(folder, vocab_size=299),
        "gives ids up to 299, but the model has 299 embedding rows",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_have_one_clear_message_and_leave_no_output(tmp_path, tied_llama, name):
    damage, message = MISTAKES[name]
    hf = tmp_path / "hf"
    shutil.copytree(tied_llama, hf)
    damage(hf)
    with pytest.raises(DataError) as error:
        hf_to_megatron.main(["--hf", str(hf), "--output", str(tmp_path / "megatron")])
    assert message in str(error.value)
    assert not (tmp_path / "megatron").exists()


def test_export_of_a_missing_checkpoint(tmp_path):
    done = run(EXPORT, "--megatron", tmp_path, "--output", tmp_path / "out", check=False)
    assert done.returncode == 1
    assert "is not a Megatron checkpoint" in done.stderr
