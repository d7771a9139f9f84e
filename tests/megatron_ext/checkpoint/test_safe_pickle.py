"""An external checkpoint runs no code: planted pickles are refused by name, wherever they are."""

import io
import os
import pickle
import random
import shutil
import signal
from argparse import Namespace
from collections import OrderedDict, defaultdict
from datetime import timedelta
from pathlib import Path

import numpy
import pytest
import torch
from megatron.core.transformer.enums import AttnBackend

from checkpoints_convert import describe, hf_to_megatron, legacy_to_megatron, megatron_to_hf
from galen.errors import DataError
from megatron_ext.checkpoint import pickle_values, safe_pickle
from megatron_ext.checkpoint.sharded import load_sharded
from megatron_ext.checkpoint.stored_tensor import StoredTensor


class Planted:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Loaded:
    """Stands for a storage, which PyTorch pickles as bytes to load."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, untied_llama):
    folder = tmp_path_factory.mktemp("safe") / "checkpoint"
    hf_to_megatron.main(["--hf", str(untied_llama), "--output", str(folder)])
    return folder


def plant_metadata(folder, planted):
    content = pickle.loads((folder / ".metadata").read_bytes())
    content.planner_data = planted
    (folder / ".metadata").write_bytes(pickle.dumps(content))


def plant_common(folder, planted):
    torch.save({"args": planted}, folder / "common.pt")


def plant_object(folder, planted):
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

    content = pickle.loads((folder / ".metadata").read_bytes())
    torch.save(planted, folder / "__9_0.distcp")
    content.state_dict_metadata["random_states/shard_0_1"] = BytesStorageMetadata()
    content.storage_data[MetadataIndex("random_states/shard_0_1")] = _StorageInfo(
        "__9_0.distcp", 0, (folder / "__9_0.distcp").stat().st_size
    )
    (folder / ".metadata").write_bytes(pickle.dumps(content))


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("plant", [plant_metadata, plant_common, plant_object])
def test_a_planted_pickle_is_refused_by_name(tmp_path, checkpoint, plant):
    copy, mark = tmp_path / "copy", tmp_path / "was-run"
    shutil.copytree(checkpoint, copy)
    plant(copy / "iter_0000000", Planted(mark))
    with pytest.raises(DataError, match=r"asks to run posix\.system"):
        load_sharded({}, copy / "iter_0000000")  # what pretraining and verify load with
    if plant is not plant_object:  # export and description read no objects
        with pytest.raises(DataError, match=r"asks to run posix\.system"):
            describe.main([str(copy)])
    if plant is plant_metadata:
        with pytest.raises(DataError, match=r"asks to run posix\.system"):
            megatron_to_hf.main(["--megatron", str(copy), "--output", str(tmp_path / "out")])
    assert not mark.exists()


def test_a_planted_old_checkpoint_is_refused(tmp_path):
    (tmp_path / "old" / "mp_rank_00").mkdir(parents=True)
    torch.save(
        {"args": Namespace(), "model": Planted(tmp_path / "was-run")},
        tmp_path / "old" / "mp_rank_00" / "model_optim_rng.pt",
    )
    with pytest.raises(DataError, match=r"asks to run posix\.system"):
        legacy_to_megatron.main(
            [
                "--legacy",
                str(tmp_path / "old"),
                "--output",
                str(tmp_path / "new"),
                "--vocab-size",
                "10",
            ]
        )
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(cbuiltins\ndict\nS'get'\ntR.",
        b"csubprocess\nPopen\n(S'ls'\ntR.",
    ],
)
def test_builtins_that_run_code_are_refused(tmp_path, text):
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(DataError, match="asks to run"):
        safe_pickle.read_pickle(tmp_path / "x")


def test_objects_of_a_training_program_stay_inert(tmp_path):
    text = b"cmegatron.enums\nAttnMaskType\n(I2\ntR."
    (tmp_path / "x").write_bytes(text)
    assert repr(safe_pickle.read_pickle(tmp_path / "x")) == "AttnMaskType(2,)"


@pytest.mark.parametrize("checksum", [True, False])
def test_tensors_are_located(tmp_path, checksum):
    tensors = {
        "a": torch.randn(5, 3),
        "t": torch.randn(4, 6).T,
        "b": torch.arange(7, dtype=torch.bfloat16)[2:],
        "scalar": torch.tensor(2.5),
    }
    torch.serialization.set_crc32_options(checksum)
    with (tmp_path / "x").open("wb") as file:
        file.write(b"before")
        torch.save(tensors, file)
        length = file.tell() - 6
        file.write(b"after")
    torch.serialization.set_crc32_options(True)
    values = safe_pickle.read_archive(tmp_path / "x", 6, length)
    assert all(isinstance(value, StoredTensor) for value in values.values())
    for name, tensor in tensors.items():
        assert values[name].read().equal(tensor), name
    assert values["a"].rows(1, 3).equal(tensors["a"][1:3])
    assert values["t"].rows(1, 3).equal(tensors["t"][1:3])


def test_a_cut_file_is_named(tmp_path, checkpoint):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    path = copy / "iter_0000000" / "__2_0.distcp"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"__2_0\.distcp"):
        megatron_to_hf.main(["--megatron", str(copy), "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    "text",
    [
        b"cmegatron.core.utils\nrun\n(S'ls'\ntR.",
        b"cbuiltins\ngetattr\n(cmegatron.core.utils\nos\nS'system'\ntR.",
    ],
)
def test_functions_and_modules_of_a_training_program_are_not_run(tmp_path, text):
    (tmp_path / "x").write_bytes(text)
    with pytest.raises(
        DataError,
        match=(
            r"asks to run megatron\.core\.utils\.(run|os), which no checkpoint does; nothing"
            r" was run"
        ),
    ):
        safe_pickle.read_pickle(tmp_path / "x")


def test_tensors_pickled_with_their_bytes_are_checked(tmp_path):
    """Transformer Engine stores the scales of FP8 so."""
    history = {
        "scale_fwd": torch.ones(3),
        "amax_history_fwd": torch.zeros(4, 3, dtype=torch.bfloat16),
    }
    safe_pickle.read_bytes(pickle.dumps(history), "history")
    inner = io.BytesIO()
    torch.save(Planted(tmp_path / "was-run"), inner, _use_new_zipfile_serialization=False)
    for planted in (Planted(tmp_path / "was-run"), Loaded(inner.getvalue())):
        with pytest.raises(DataError, match=r"history asks to run posix\.system"):
            safe_pickle.read_bytes(pickle.dumps(history | {"scale_bwd": planted}), "history")
    assert not (tmp_path / "was-run").exists()


def test_the_class_of_an_optimizer_may_be_named_but_not_made():
    """Megatron's optimizer on the host stores it."""
    safe_pickle.read_bytes(pickle.dumps({"cpu_optimizer_cls": torch.optim.AdamW}), "groups")
    with pytest.raises(DataError, match=r"groups asks to run torch\.optim\.adamw\.AdamW"):
        safe_pickle.read_bytes(b"ctorch.optim.adamw\nAdamW\n(tR.", "groups")


def test_bytes_behind_a_storage_are_refused(tmp_path):
    """torch.load unpickles the storage's keys too, whatever they are."""
    five = (1, 2, 3, "the storage", Planted(tmp_path / "was-run"))
    content = pickle.dumps(Loaded(b"".join(map(pickle.dumps, five))))
    with pytest.raises(DataError, match=r"x asks to run posix\.system"):
        safe_pickle.read_bytes(content, "x")
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_training_programs_are_read(tmp_path, protocol):
    drawn = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    turned = numpy.arange(6).reshape(2, 3).T
    arguments = Namespace(
        backend=AttnBackend.flash,
        where=Path("/x/y"),
        signal=signal.SIGTERM,
        dtype=torch.bfloat16,
        timeout=timedelta(minutes=3),
        lr=1e-3,
    )
    stored = {
        "args": arguments,
        "rng": drawn,
        "turned": turned,
        "number": numpy.float64(2.5),
        "state": OrderedDict(torch.nn.Linear(2, 3).state_dict()),
        "default": defaultdict(list, {1: [2]}),
        "plain": [
            {1, 2},
            frozenset({"a"}),
            b"\xff\0" * 200,
            bytearray(b"x"),
            2**70,
            -1.5,
            1j,
            None,
            True,
            (),
        ],
    }
    torch.save(stored, tmp_path / "common.pt", pickle_protocol=protocol)
    values = pickle_values.real(
        safe_pickle.read_archive(tmp_path / "common.pt"), "common.pt", inert=True
    )
    assert (
        values["plain"] == stored["plain"]
        and values["default"] == stored["default"]
        and values["number"] == 2.5
    )
    assert all(values["state"][name].equal(weight) for name, weight in stored["state"].items())
    assert (
        values["turned"].tolist() == turned.tolist() and values["rng"]["python"] == drawn["python"]
    )
    assert values["rng"]["numpy"][1].tolist() == drawn["numpy"][1].tolist() and values["rng"][
        "torch"
    ].equal(drawn["torch"])
    read = vars(values["args"])
    assert (read["where"], read["dtype"], read["timeout"], read["lr"]) == (
        Path("/x/y"),
        torch.bfloat16,
        timedelta(minutes=3),
        1e-3,
    )
    assert repr(read["backend"]) == "AttnBackend(1,)" and read["signal"].arguments == (15,)
