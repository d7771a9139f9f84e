"""An optimizer state in buckets becomes tensors of the weights' shapes, bit by bit."""

import json
import shutil

import pytest
import torch

from checkpoints_convert import describe, megatron_to_hf, reshard
from checkpoints_convert.conversion import reshard_optimizer
from galen import manifest
from galen.errors import DataError, OutputConflictError, UsageError
from megatron_ext.checkpoint import optimizer_buckets
from megatron_ext.checkpoint.optimizer_buckets import ModelSpace
from megatron_ext.checkpoint.torch_dist import TorchDist
from tests.checkpoints_convert.buckets import seal, with_optimizer
from tests.conftest import import_model


@pytest.fixture(scope="module")
def made(make_model, tmp_path_factory):
    """A checkpoint with an optimizer's state in buckets, and the tensors of that state."""
    base = tmp_path_factory.mktemp("buckets")
    imported = import_model(make_model("qwen2"), base / "imported")
    return base / "run", with_optimizer(imported, base / "run")


def convert(checkpoint, output, *options):
    reshard.main(["--megatron", str(checkpoint), "--output", str(output), *options])
    return output


def test_all_values_stay_the_same(tmp_path, made, monkeypatch, caplog):
    caplog.set_level("INFO")
    checkpoint, expected = made
    monkeypatch.setattr(reshard_optimizer, "CHUNK_BYTES", 3000)
    monkeypatch.setattr(reshard_optimizer, "FILE_BYTES", 100_000)
    output = convert(checkpoint, tmp_path / "output")
    before = TorchDist(checkpoint / "iter_0000005")
    after = TorchDist(output / "iter_0000005")
    weights = [name for name in before.tensors if not name.startswith("optimizer.")]
    assert after.tensors.keys() == {*weights, *expected}
    for name in weights:
        expected_rows = before.rows(name, (), 0, before.shape(name, ())[0])
        assert after.rows(name, (), 0, len(expected_rows)).equal(expected_rows), name
    for name, tensor in expected.items():
        assert after.rows(name, (), 0, len(tensor)).equal(tensor), name
    common = after.common()
    assert common["iteration"] == 5
    groups = common["optimizer"]["optimizer"]["param_groups"]
    assert [group["wd_mult"] for group in groups] == [0.0, 1.0]
    assert common["optimizer"]["param_state_sharding_type"] == "fully_reshardable"
    assert list(after.objects) == ["random_states/shard_0_1"]
    assert not (output / "iter_0000005" / optimizer_buckets.NAME).exists()
    assert len(list((output / "iter_0000005").glob("*.distcp"))) > 5
    for record in manifest.read(output / "iter_0000005", "reshard")["outputs"]:
        path = output / "iter_0000005" / record["path"]
        assert manifest.sha256(path) == record["sha256"]
    convert(checkpoint, output)
    assert "is already complete" in caplog.text


def test_both_formats_export_to_the_same_bytes(tmp_path, made):
    checkpoint, _ = made
    output = convert(checkpoint, tmp_path / "output", "--workers", "2")
    exported = []
    for number, folder in enumerate((checkpoint, output)):
        target = tmp_path / f"hf_{number}"
        megatron_to_hf.main(["--megatron", str(folder), "--output", str(target)])
        exported.append((target / "model.safetensors").read_bytes())
    assert exported[0] == exported[1]
    assert describe.describe(checkpoint)["optimizer state"] == "6 tensors, dp_reshardable"
    assert "fully_reshardable" in describe.describe(output)["optimizer state"]


def test_any_part_of_a_shard_is_read(made):
    checkpoint, expected = made
    folder = checkpoint / "iter_0000005"
    space = ModelSpace(TorchDist(folder), optimizer_buckets.read(folder))
    name = "optimizer.state.exp_avg.decoder.layers.mlp.linear_fc1.weight"
    offset = (2, 0, 32)  # the second rank's columns of a layer
    part = space.read(name, offset, (0, 5, 3), (1, 17, 20))
    assert part.equal(expected[name][2:3, 5:22, 35:55])
    assert space.read(name, offset, (0, 0, 0), (1, 192, 32)).equal(expected[name][2:3, :, 32:])
    norm = "optimizer.state.param.decoder.final_layernorm.weight"
    assert space.read(norm, (0,), (10,), (20,)).equal(expected[norm][10:30])


def without(records, change):
    """Return the records of the slices with a change of the first."""
    return [change(records[0]), *records[1:]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda records: {"no": "list"}, "it has no list of slices"),
        (lambda records: without(records, lambda one: one[:-1]), "slice 0 is damaged"),
        (lambda records: without(records, lambda one: [*one[:1], -1, *one[2:]]), "slice 0 is"),
        (lambda records: without(records, lambda one: [*one[:1], True, *one[2:]]), "slice 0 is"),
        (lambda records: without(records, lambda one: [*one[:3], [], [], [], True]), "slice 0 is"),
        (
            lambda records: without(records, lambda one: [*one[:1], 2**60, *one[2:]]),
            "is outside optimizer",
        ),
        (lambda records: [records[0], *records], "do not match"),
        (lambda records: records[1:], "does not name all parts of optimizer"),
        (lambda records: [], "names no bucket"),
    ],
)
def test_damaged_slices_are_refused(tmp_path, made, damage, message):
    folder = shutil.copytree(made[0], tmp_path / "run") / "iter_0000005"
    path = folder / optimizer_buckets.NAME
    path.write_text(json.dumps({"slices": damage(json.loads(path.read_text())["slices"])}))
    seal(folder)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run", tmp_path / "output")
    assert not list((tmp_path / "output").glob("iter_*"))


def test_checkpoints_that_cannot_be_converted(tmp_path, made, make_model):
    run = shutil.copytree(made[0], tmp_path / "run")
    (run / "iter_0000005" / optimizer_buckets.NAME).unlink()
    with pytest.raises(DataError, match=r"no optimizer_buckets\.json: another program wrote it"):
        convert(run, tmp_path / "output", "--no-verify")
    imported = import_model(make_model("qwen2"), tmp_path / "imported")
    with pytest.raises(DataError, match="any layout can load it as it is"):
        convert(imported, tmp_path / "output")
    with pytest.raises(UsageError, match="is the input; choose another folder"):
        convert(made[0], made[0])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(OutputConflictError, match="is not a Megatron checkpoint"):
        convert(made[0], tmp_path / "other")


def test_an_output_of_other_slices_is_not_complete(tmp_path, made):
    run = shutil.copytree(made[0], tmp_path / "run")
    output = convert(run, tmp_path / "output")
    path = run / "iter_0000005" / optimizer_buckets.NAME
    path.write_text(path.read_text().replace(", true]", ", false]", 1))
    seal(path.parent)
    with pytest.raises(OutputConflictError):
        convert(run, output)


def test_the_core_writes_this_format_in_float32(tmp_path, made):
    """Transformer Engine's optimizer keeps remainders of weights as 16-bit integers."""
    shard = reshard_optimizer.Shard("key", (4,), (0,), (4,), torch.float32, "bucket", 0)
    source = TorchDist(made[0] / "iter_0000005")
    source.read_into = lambda target, name, layer, start: target.copy_(
        torch.tensor([1, -2, 3, -4], dtype=torch.int16)
    )
    target = torch.empty(4)
    reshard_optimizer._Fill(source, shard)(target)
    assert target.tolist() == [1.0, -2.0, 3.0, -4.0]
