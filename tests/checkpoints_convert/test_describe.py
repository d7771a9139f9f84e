import json
import shutil

import pytest

from checkpoints_convert import describe, hf_to_megatron
from galen.errors import DataError


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("qwen3", dtype="bfloat16", num_hidden_layers=4)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("describe") / "megatron"
    hf_to_megatron.main(["--hf", str(model), "--output", str(folder)])
    return folder


def described(path, capsys, code=0):
    capsys.readouterr()
    assert describe.main([str(path), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_megatron_checkpoint(checkpoint, capsys):
    description = described(checkpoint, capsys)
    assert description["format"] == "Megatron torch_dist"
    assert (description["family"], description["num_layers"], description["vocab_size"]) == (
        "qwen3",
        4,
        300,
    )
    assert (
        description["vocabulary rows, padded"],
        description["saved from"],
        description["optimizer state"],
    ) == (
        384,
        "TP1 x PP1",
        "none",
    )
    assert description["complete"] == "yes"
    assert described(checkpoint / "iter_0000000", capsys) == description


def test_losses_are_shown_where_a_run_keeps_them(checkpoint, tmp_path, capsys):
    folder = tmp_path / "iter_0000003"
    shutil.copytree(checkpoint / "iter_0000000", folder)
    for losses in ([], [2.5]):
        state = {"layout": [1, 1, 1], "progress": {"iteration": 3, "recent_losses": losses}}
        (folder / "training_state.json").write_text(json.dumps(state))
        assert described(folder, capsys).get("recent losses") == (losses or None)


def test_the_experts_of_a_token_are_shown_at_their_default(make_model, capsys):
    description = described(make_model("mixtral"), capsys)
    assert description["moe_router_topk"] == 2
    assert description["active parameters"] < description["parameters"]


def test_a_hugging_face_folder(model, capsys):
    description = described(model, capsys)
    assert (description["family"], description["tensors"], description["complete"]) == (
        "qwen3",
        47,
        "yes",
    )


def test_incomplete_ones_are_named(checkpoint, model, tmp_path, capsys):
    shutil.copytree(checkpoint, tmp_path / "cut")
    part = tmp_path / "cut" / "iter_0000000" / "__4_0.distcp"
    part.write_bytes(part.read_bytes()[:-100])
    assert described(tmp_path / "cut", capsys, 1)["complete"].startswith("no: __4_0.distcp has ")
    part.unlink()
    assert described(tmp_path / "cut", capsys, 1)["complete"] == "no: __4_0.distcp is missing"
    shutil.copytree(model, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text()) | {
        "num_hidden_layers": 5,
        "layer_types": None,
    }
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    assert "lacks 11 tensors" in described(tmp_path / "hf", capsys, 1)["complete"]


def test_no_checkpoint(tmp_path):
    with pytest.raises(DataError, match="is not a checkpoint"):
        describe.main([str(tmp_path)])
