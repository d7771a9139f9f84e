"""Mixtures of experts: both hub layouts, the experts' order, configurations and their sizes."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import describe, families, hf_to_megatron, megatron_to_hf, verify
from checkpoints_convert.conversion import weight_tasks
from galen.errors import DataError, UsageError
from megatron_ext.checkpoint import torch_dist
from megatron_ext.checkpoint.torch_dist import TorchDist
from tests.checkpoints_convert.tiny_models import MOE


def import_model(hf, output, *options):
    hf_to_megatron.main(["--hf", str(hf), "--output", str(output), *options])
    return output


def exported(checkpoint, output):
    megatron_to_hf.main(["--megatron", str(checkpoint), "--output", str(output)])
    return load_file(output / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def with_weights(model, folder, tensors):
    """Copy a model folder with other weights."""
    folder.mkdir()
    for path in model.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", MOE)
def test_round_trip_is_bit_identical(tmp_path, models, checkpoints, name):
    original = load_file(models[name] / "model.safetensors")
    assert same(exported(checkpoints[name], tmp_path / "back"), original)
    config = json.loads((models[name] / "config.json").read_text())
    family, architecture = families.find(models[name] / "config.json")
    assert family.architecture(family.config(architecture)) == architecture
    assert family.architecture(config) == architecture


@pytest.mark.parametrize("name", MOE)
def test_stacked_experts_are_the_same_model(tmp_path, models, checkpoints, name):
    """transformers 5 may save all experts of a layer in one tensor; an export divides them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models[name])
    model.save_pretrained(tmp_path / "saved", save_original_format=False)
    stacked = load_file(tmp_path / "saved" / "model.safetensors")
    assert "model.layers.1.mlp.experts.gate_up_proj" in stacked
    folder = with_weights(models[name], tmp_path / "stacked", stacked)
    checkpoint = import_model(folder, tmp_path / "megatron")
    assert same(
        exported(checkpoint, tmp_path / "back"), load_file(models[name] / "model.safetensors")
    )
    options = ["--hf", str(folder), "--megatron", str(checkpoints[name]), "--weights-only"]
    assert verify.main(options) == 0


def test_experts_are_stacked_in_the_routers_order(models, checkpoints):
    original = load_file(models["qwen3-moe"] / "model.safetensors")
    stored = TorchDist(checkpoints["qwen3-moe"] / "iter_0000000")
    fc1 = "decoder.layers.mlp.experts.experts.linear_fc1.weight"
    assert tuple(stored.tensors[fc1].size) == (2, 4, 96, 64)
    for expert in range(4):
        prefix = f"model.layers.1.mlp.experts.{expert}"
        parts = [original[f"{prefix}.{part}_proj.weight"] for part in ("gate", "up")]
        assert stored.rows(fc1, (1, expert), 0, 96).equal(torch.cat(parts))
    router = stored.rows("decoder.layers.mlp.router.weight", (1,), 0, 4)
    assert router.equal(original["model.layers.1.mlp.gate.weight"])


def test_verify_names_swapped_experts(tmp_path, models, checkpoints, capsys):
    tensors = load_file(models["mixtral"] / "model.safetensors")
    first, second = (f"model.layers.1.block_sparse_moe.experts.{n}.w2.weight" for n in (1, 3))
    tensors[first], tensors[second] = tensors[second], tensors[first]
    folder = with_weights(models["mixtral"], tmp_path / "swapped", tensors)
    options = ["--hf", str(folder), "--megatron", str(checkpoints["mixtral"]), "--weights-only"]
    assert verify.main(options) == 1
    output = capsys.readouterr().out
    assert "linear_fc2.weight (layer 1, expert 1) is not model.layers.1.block_sparse" in output
    assert "expert 2" not in output


def test_tiny_slices_and_a_router_of_another_precision(tmp_path, models, monkeypatch):
    tensors = load_file(models["olmoe"] / "model.safetensors")
    mixed = {
        name: tensor if ".mlp.gate." in name else tensor.bfloat16()
        for name, tensor in tensors.items()
    }
    folder = with_weights(models["olmoe"], tmp_path / "mixed", mixed)
    monkeypatch.setattr(weight_tasks, "CHUNK_BYTES", 3000)
    checkpoint = import_model(folder, tmp_path / "megatron")
    assert same(exported(checkpoint, tmp_path / "back"), mixed)


@pytest.mark.parametrize("name", ["layers.1.mlp.gate.", "layers.1.mlp.experts.2."])
def test_a_layer_or_expert_of_another_precision_is_refused(tmp_path, models, name):
    tensors = load_file(models["olmoe"] / "model.safetensors")
    mixed = {key: one.bfloat16() if name in key else one for key, one in tensors.items()}
    folder = with_weights(models["olmoe"], tmp_path / "mixed", mixed)
    message = rf"layers\.0\.mlp\S* is float32, model\.{re.escape(name)}\S* is bfloat16, but"
    with pytest.raises(DataError, match=message):
        import_model(folder, tmp_path / "megatron")


def test_another_family_cannot_represent_it(tmp_path, checkpoints):
    options = ["--megatron", str(checkpoints["qwen3-moe"]), "--as-family", "qwen3"]
    with pytest.raises(DataError, match="num_moe_experts is None instead of 4"):
        megatron_to_hf.main([*options, "--output", str(tmp_path / "back")])


def test_new_tokens_get_rows(tmp_path, models):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("<gene>\n<drug>\n")
    hf = models["qwen2-moe"]
    checkpoint = import_model(hf, tmp_path / "megatron", "--add-special-tokens", str(tokens))
    actual = exported(checkpoint, tmp_path / "back")
    expected = load_file(hf / "model.safetensors")
    for name, tensor in expected.items():
        assert actual[name][: len(tensor)].equal(tensor), name
    _, architecture = families.find(tmp_path / "back" / "config.json")
    assert len(actual["lm_head.weight"]) == architecture.vocab_size >= 302


def test_a_tensor_under_both_names_is_refused(tmp_path, models):
    tensors = load_file(models["olmoe"] / "model.safetensors")
    tensors["model.layers.0.mlp.experts.down_proj"] = torch.zeros(4, 64, 96)
    folder = with_weights(models["olmoe"], tmp_path / "both", tensors)
    message = "holds both model.layers.0.mlp.experts.down_proj and model.layers.0.mlp.experts.0"
    with pytest.raises(DataError, match=message):
        import_model(folder, tmp_path / "megatron")


def test_a_missing_expert_is_named(tmp_path, models):
    tensors = load_file(models["olmoe"] / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
    folder = with_weights(models["olmoe"], tmp_path / "missing", tensors)
    with pytest.raises(DataError, match=r"lacks 1 tensors .*experts\.3\.up_proj\.weight"):
        import_model(folder, tmp_path / "megatron")


def test_fewer_experts_than_stored_are_refused(tmp_path, models, checkpoints):
    config = json.loads((models["mixtral"] / "config.json").read_text())
    config["num_local_experts"] = 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config))
    options = ["--megatron", str(checkpoints["mixtral"]), "--hf", str(other)]
    with pytest.raises(DataError, match="num_moe_experts is 3 instead of 4"):
        megatron_to_hf.main([*options, "--output", str(tmp_path / "back")])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("qwen3-moe", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2 is not supported"),
        ("qwen3-moe", {"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\] is not supported"),
        ("qwen3-moe", {"num_experts": 8}, "num_experts = 8 contradicts num_local_experts = 4"),
        ("qwen3-moe", {"num_local_experts": 0}, "must be a positive integer"),
        ("qwen3-moe", {"num_experts_per_tok": 5}, ": moe_router_topk is larger than num"),
        ("qwen2-moe", {"qkv_bias": False}, "qkv_bias = False is not supported"),
        ("qwen2-moe", {"use_sliding_window": True}, "use_sliding_window = True"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv = 8.0 is not supported"),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise = 0.1 is not supported"),
    ],
)
def test_other_functions_are_refused_by_name(tmp_path, models, name, change, message):
    config = json.loads((models[name] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=message):
        families.find(tmp_path / "config.json")


def test_a_stacked_tensor_of_another_size_is_named(tmp_path, models):
    tensors = load_file(models["olmoe"] / "model.safetensors")
    tensors["model.layers.0.mlp.experts.gate_up_proj"] = torch.zeros(4, 191, 64)
    folder = with_weights(models["olmoe"], tmp_path / "odd", tensors)
    message = r"gate_up_proj: the size \[4, 191, 64\] is not \[experts, 2 x rows, columns\]"
    with pytest.raises(DataError, match=message):
        import_model(folder, tmp_path / "megatron")


def test_tied_embeddings(tmp_path, make_model):
    hf = make_model("olmoe", tie_word_embeddings=True)
    original = load_file(hf / "model.safetensors")
    assert "lm_head.weight" not in original
    assert same(exported(import_model(hf, tmp_path / "megatron"), tmp_path / "back"), original)


def test_numbered_layers_with_several_experts_in_a_part(tmp_path, checkpoints):
    """Megatron numbers layers that may differ; a rank saves its experts as it likes."""
    stored = TorchDist(checkpoints["qwen3-moe"] / "iter_0000000")
    name = "decoder.layers.mlp.experts.experts.linear_fc1.weight"
    experts = [stored.rows(name, (1, expert), 0, 96) for expert in range(4)]
    numbered = name.replace("layers.", "layers.1.")
    shape = (4, 96, 64)
    path = tmp_path / "__0_0.distcp"
    with path.open("wb") as file:
        parts = {(0, 0, 0): experts[:3], (3, 0, 0): experts[3:]}
        entries = [
            torch_dist.write_entry(file, path.name, numbered, shape, offset, torch.stack(part))
            for offset, part in parts.items()
        ]
    torch_dist.finish(tmp_path, entries, torch_dist.common_without_arguments())
    copy = TorchDist(tmp_path)
    assert copy.shape(name, (1, 0)) == (96, 64)
    assert not copy.holds(name, (0, 0))
    for expert, tensor in enumerate(experts):
        assert copy.rows(name, (1, expert), 5, 90).equal(tensor[5:90])


@pytest.mark.multiprocess
def test_logits_of_divided_experts(models, checkpoints, forked_logits, capsys):
    options = ["--hf", str(models["olmoe"]), "--megatron", str(checkpoints["olmoe"])]
    assert verify.main([*options, "--ep", "2"]) == 0
    assert "Megatron under TP1 x PP1 x EP2" in capsys.readouterr().out
    with pytest.raises(UsageError, match="4 experts cannot be divided by expert-parallel size 3"):
        verify.main([*options, "--ep", "3"])


def test_active_parameters_are_described(models, checkpoints, capsys):
    for path in (models["mixtral"], checkpoints["mixtral"]):
        capsys.readouterr()
        assert describe.main([str(path), "--json"]) == 0
        description = json.loads(capsys.readouterr().out)
        unused = 2 * 2 * 3 * 96 * 64  # two of four experts in each of two layers
        assert description["active parameters"] == description["parameters"] - unused
