"""A checkpoint in Megatron-LM's own form (no architecture.json, no hf/) holds what ours holds, and becomes one of ours."""

import shutil

import pytest
from safetensors.torch import load_file

from checkpoints_convert import adopt, megatron_to_hf
from galen.errors import DataError
from megatron_ext.torch_dist import TorchDist
from tests.conftest import import_model


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama-3")


@pytest.fixture(scope="module")
def ours(model, tmp_path_factory):
    return import_model(model, tmp_path_factory.mktemp("adopt") / "ours")


@pytest.fixture(scope="module")
def saved(ours, megatron_side):
    """What `dist_checkpointing.save` writes of Megatron's model, under the names that Megatron-LM uses."""
    megatron_side(1, "save", ours, ours.parent / "iter_0000030")
    return ours.parent / "iter_0000030"


@pytest.fixture
def foreign(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "foreign" / saved.name)
    (tmp_path / "foreign" / "latest_checkpointed_iteration.txt").write_text("30")
    return tmp_path / "foreign"


def test_adopted_and_exported(foreign, model, tmp_path):
    adopt.main(["--megatron", str(foreign), "--hf", str(model)])
    megatron_to_hf.main(["--megatron", str(foreign), "--output", str(tmp_path / "back")])
    expected, found = load_file(model / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def test_another_model_is_refused(foreign, make_model):
    with pytest.raises(DataError, match=r"linear_qkv\.bias"):
        adopt.main(["--megatron", str(foreign), "--hf", str(make_model("qwen2"))])
    assert not (foreign / "hf").exists()


def test_imports_hold_the_tensors_that_megatron_saves(ours, saved):
    imported, own = TorchDist(ours / "iter_0000000"), TorchDist(saved)
    names = {name for name in own.tensors if "_extra_state" not in name}
    assert names == set(imported.tensors)
    for name in names:
        layer = 3 if name.startswith("decoder.layers.") else None
        assert own.tensors[name].size == imported.tensors[name].size
        rows = imported.shape(name, layer)[0]
        assert own.rows(name, layer, 0, rows).equal(imported.rows(name, layer, 0, rows)), name


def test_imports_carry_megatron_lms_arguments(ours):
    arguments = vars(TorchDist(ours / "iter_0000000").common()["args"])
    assert (arguments["num_layers"], arguments["num_query_groups"], arguments["rotary_base"]) == (4, 2, 500000)
    assert arguments["untie_embeddings_and_output_weights"]
    assert arguments["padded_vocab_size"] == 384
