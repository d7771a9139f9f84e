"""Conversion in slices has the same result for any slice size and number of processes.

So it has when it is killed and started again.
"""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from checkpoints_convert import hf_to_megatron, megatron_to_hf, verify
from checkpoints_convert.conversion import export_hf, import_hf, weight_tasks
from checkpoints_convert.hf.weights import Weights
from galen import manifest
from galen.errors import DataError
from megatron_ext.checkpoint.torch_dist import TorchDist


def import_model(hf, folder, *options):
    hf_to_megatron.main(["--hf", str(hf), "--output", str(folder), *map(str, options)])
    return folder


def export_model(checkpoint, folder, *options):
    megatron_to_hf.main(
        ["--megatron", str(checkpoint), "--output", str(folder), *map(str, options)]
    )
    return folder


def same(first, second):
    first, second = Weights(first), Weights(second)
    return first.names() == second.names() and all(
        first.read(name).equal(second.read(name)) for name in first.names()
    )


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("qwen2")


def test_tiny_pieces_are_the_same_model(tmp_path, model, forked_logits, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(weight_tasks, "CHUNK_BYTES", 3000)
        checkpoint = import_model(model, tmp_path / "megatron")
        export_model(checkpoint, tmp_path / "back")
    parts = (
        TorchDist(checkpoint / "iter_0000000")
        .tensors["decoder.layers.mlp.linear_fc1.weight"]
        .chunks
    )
    assert len(parts) > 4 * 10
    assert all(part.sizes[1] * 64 * 4 <= 3000 for part in parts)
    assert same(tmp_path / "back", model)
    assert same(export_model(checkpoint, tmp_path / "whole"), model)
    # and Megatron loads them, cut across its own cuts
    assert verify.main(["--hf", str(model), "--megatron", str(checkpoint), "--tp", "2"]) == 0


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path, model):
    checkpoint = import_model(model, tmp_path / "megatron", "--workers", 2)
    alone = import_model(model, tmp_path / "alone")
    for path in sorted((alone / "iter_0000000").glob("*.distcp")):
        assert (checkpoint / "iter_0000000" / path.name).read_bytes() == path.read_bytes()
    exported = export_model(
        checkpoint, tmp_path / "back", "--workers", 2, "--max-shard-bytes", 150000
    )
    assert same(exported, model)


def test_hashes_taken_on_the_way_are_right(tmp_path, model):
    checkpoint = import_model(model, tmp_path / "megatron")
    for folder in (checkpoint / "iter_0000000", export_model(checkpoint, tmp_path / "back")):
        record = manifest.read(folder)
        for entry in record["outputs"]:
            assert (
                hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
            ), entry["path"]
        assert not [
            path.name
            for path in folder.iterdir()
            if path.name.startswith(".") and path.name != ".metadata"
        ]


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize("step", [import_hf.WriteDistcp, export_hf.WriteShard])
def test_killed_and_started_again(tmp_path, model, monkeypatch, caplog, step):
    caplog.set_level("INFO")
    importing_now = step is import_hf.WriteDistcp
    checkpoint = tmp_path / "megatron"
    if not importing_now:
        import_model(model, checkpoint)
    original, written = step.run, []

    def dies(self, output, reader):
        if len(written) == 4:
            output.write(b"half")
            raise Killed
        written.append(self.file)
        return original(self, output, reader)

    def convert():
        return (
            import_model(model, checkpoint)
            if importing_now
            else export_model(checkpoint, tmp_path / "back", "--max-shard-bytes", 60000)
        )

    with monkeypatch.context() as patch:
        patch.setattr(step, "run", dies)
        with pytest.raises(Killed):
            convert()
    assert not (checkpoint / "iter_0000000" if importing_now else tmp_path / "back").exists()
    repeated = []
    monkeypatch.setattr(
        step,
        "run",
        lambda self, output, reader: (repeated.append(self.file), original(self, output, reader))[
            1
        ],
    )
    convert()
    assert "resuming: " in caplog.text
    assert set(repeated) != set(written) | set(repeated)  # some were not written again
    if importing_now:
        export_model(checkpoint, tmp_path / "back")
    assert same(tmp_path / "back", model)


def test_an_unfinished_conversion_of_another_model_is_not_continued(
    tmp_path, model, make_model, monkeypatch, caplog
):
    caplog.set_level("INFO")
    other = make_model("qwen2", initializer_range=0.1)
    original, written = import_hf.WriteDistcp.run, []

    def dies(self, output, reader):
        if len(written) == 3:
            raise Killed
        written.append(self.file)
        return original(self, output, reader)

    with monkeypatch.context() as patch:
        patch.setattr(import_hf.WriteDistcp, "run", dies)
        with pytest.raises(Killed):
            import_model(other, tmp_path / "megatron")
    import_model(model, tmp_path / "megatron")
    assert "resuming" not in caplog.text
    assert same(export_model(tmp_path / "megatron", tmp_path / "back"), model)


def test_another_precision(tmp_path, model):
    half = export_model(
        import_model(model, tmp_path / "megatron", "--dtype", "bf16"), tmp_path / "half"
    )
    expected, actual = load_file(model / "model.safetensors"), load_file(half / "model.safetensors")
    assert all(actual[name].equal(tensor.to(torch.bfloat16)) for name, tensor in expected.items())
    config = json.loads((half / "config.json").read_text())
    assert (config.get("dtype") or config.get("torch_dtype")) == "bfloat16"
    export_model(tmp_path / "megatron", tmp_path / "full", "--dtype", "fp32")
    assert (
        load_file(tmp_path / "full" / "model.safetensors")["lm_head.weight"].dtype == torch.float32
    )


def test_other_options_into_the_same_output_are_refused(tmp_path, model):
    import_model(model, tmp_path / "megatron")
    with pytest.raises(DataError, match=r'belongs to another run \(dtype: not set → "bf16"\)'):
        import_model(model, tmp_path / "megatron", "--dtype", "bf16")


def test_a_lost_file_is_named(tmp_path, model):
    checkpoint = import_model(model, tmp_path / "megatron")
    (checkpoint / "iter_0000000" / "__3_0.distcp").unlink()
    with pytest.raises(DataError, match=r"__3_0\.distcp is missing"):
        export_model(checkpoint, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_full_disk_is_reported_before_the_work(tmp_path, model, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        DataError, match=r"has 0\.000 GB of free space, the conversion writes 0\.00"
    ):
        import_model(model, tmp_path / "megatron")
    assert not list((tmp_path / "megatron").glob("iter_*"))
