"""A checkpoint in Megatron-LM's own form holds the same as ours, and becomes one of ours.

It has no architecture.json and no hf/.
"""

import json
import shutil

import pytest
from safetensors.torch import load_file

from checkpoints_convert import megatron_to_hf, register_checkpoint
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import TorchDist
from tests.conftest import import_model


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama-3")


@pytest.fixture(scope="module")
def ours(model, tmp_path_factory):
    return import_model(model, tmp_path_factory.mktemp("register") / "ours")


@pytest.fixture(scope="module")
def saved(ours, megatron_side):
    """What `dist_checkpointing.save` writes of Megatron's model, with Megatron-LM's names."""
    megatron_side(1, "save", ours, ours.parent / "iter_0000030")
    return ours.parent / "iter_0000030"


@pytest.fixture
def foreign(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "foreign" / saved.name)
    (tmp_path / "foreign" / "latest_checkpointed_iteration.txt").write_text("30")
    return tmp_path / "foreign"


def test_registered_and_exported(foreign, model, tmp_path):
    register_checkpoint.main(["--megatron", str(foreign), "--hf", str(model)])
    megatron_to_hf.main(["--megatron", str(foreign), "--output", str(tmp_path / "back")])
    expected, actual = (
        load_file(model / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    assert actual.keys() == expected.keys()
    assert all(actual[name].equal(tensor) for name, tensor in expected.items())


def test_another_model_is_refused(foreign, make_model):
    with pytest.raises(DataError, match=r"linear_qkv\.bias"):
        register_checkpoint.main(["--megatron", str(foreign), "--hf", str(make_model("qwen2"))])
    assert not (foreign / "hf").exists()


def test_a_checkpoint_that_is_cut_off_is_refused(foreign, model):
    """It has a manifest that marks it complete."""
    path = next((foreign / "iter_0000030").glob("*.distcp"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        DataError, match=rf"is incomplete: {path.name} has [\d,]+ bytes, its parts end at"
    ):
        register_checkpoint.main(["--megatron", str(foreign), "--hf", str(model)])
    assert not (foreign / "hf").exists()


def test_imports_hold_the_tensors_that_megatron_saves(ours, saved):
    imported, own = TorchDist(ours / "iter_0000000"), TorchDist(saved)
    names = {name for name in own.tensors if "_extra_state" not in name}
    assert names == set(imported.tensors)
    for name in names:
        index = (3,) if name.startswith("decoder.layers.") else ()
        assert own.tensors[name].size == imported.tensors[name].size
        rows = imported.shape(name, index)[0]
        assert own.rows(name, index, 0, rows).equal(imported.rows(name, index, 0, rows)), name


def test_imports_carry_megatron_lms_arguments(ours):
    arguments = vars(TorchDist(ours / "iter_0000000").common()["args"])
    assert (arguments["num_layers"], arguments["num_query_groups"], arguments["rotary_base"]) == (
        4,
        2,
        500000,
    )
    assert arguments["untie_embeddings_and_output_weights"]
    assert arguments["padded_vocab_size"] == 384


def test_a_registered_checkpoint_is_complete_without_its_pointer_and_guarded(
    foreign, model, tmp_path
):
    for _ in range(2):  # again, and with the files of the first time
        register_checkpoint.main(["--megatron", str(foreign), "--hf", str(model)])
        (foreign / "latest_checkpointed_iteration.txt").unlink(missing_ok=True)
        model = foreign / "hf"
    assert (model / "config.json").is_file()
    weights = max((foreign / "iter_0000030").glob("*.distcp"), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=rf"{weights.name} was altered"):
        megatron_to_hf.main(["--megatron", str(foreign), "--output", str(tmp_path / "back")])


def test_one_of_ours_stays_the_model_that_it_is(ours, model, tmp_path):
    """Adopting again writes no new architecture.json.

    The tensors do not tell the rotary base, and the manifest would call a new file altered.
    """
    shutil.copytree(ours, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours" / "hf")
    register_checkpoint.main(
        ["--megatron", str(tmp_path / "ours"), "--hf", str(model)]
    )  # a lost hf/ comes back
    megatron_to_hf.main(["--megatron", str(tmp_path / "ours"), "--output", str(tmp_path / "back")])
    shutil.copytree(model, tmp_path / "other")
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 777.0
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"is one of Galen's and another model than .*rotary_base"):
        register_checkpoint.main(
            ["--megatron", str(tmp_path / "ours"), "--hf", str(tmp_path / "other")]
        )
