"""A checkpoint in Megatron-LM's own form (no architecture.json, no hf/) becomes one of ours."""

import pytest
from safetensors.torch import load_file

from checkpoints_convert import adopt, hf_to_megatron, megatron_to_hf
from galen.errors import DataError
from megatron_ext.torch_dist import TorchDist
from tests.conftest import run


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama-3")


@pytest.fixture
def foreign(tmp_path, model):
    """What `dist_checkpointing.save` writes of Megatron's model, under the names that Megatron-LM uses."""
    hf_to_megatron.main(["--hf", str(model), "--output", str(tmp_path / "ours")])
    (tmp_path / "foreign").mkdir()
    run("-m", "tests.checkpoints_convert.save_again", tmp_path / "ours", tmp_path / "foreign" / "iter_0000030")
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


def test_imports_carry_megatron_lms_arguments(foreign, tmp_path):
    arguments = vars(TorchDist(tmp_path / "ours" / "iter_0000000").common()["args"])
    assert (arguments["num_layers"], arguments["num_query_groups"], arguments["rotary_base"]) == (4, 2, 500000)
    assert arguments["untie_embeddings_and_output_weights"]
    assert arguments["padded_vocab_size"] == 384
