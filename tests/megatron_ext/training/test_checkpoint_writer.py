"""A process that writes a checkpoint may outlive the trainer that started it."""

import hashlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest

from checkpoints_convert import reshard
from galen import manifest
from galen.errors import DataError
from megatron_ext.checkpoint import integrity
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.training.checkpoint_writer import Stall
from tests.megatron_ext.conftest import RECIPE, log
from tests.megatron_ext.kills import assert_same_losses, rewind

ASIDE = ["training.async_save=true", "training.dist_ckpt_optim_fully_reshardable=never"]
STEPS = [
    "training.train_iters=2",
    "training.save_interval=1",
    "training.eval_iters=0",
    "optimizer.lr_warmup_iters=0",
    "training.dist_ckpt_optim_fully_reshardable=always",
]


@pytest.mark.multiprocess
def test_its_weights_are_those_of_the_optimizer(tmp_path, pretrain_forked):
    overlap = ["parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"]
    output = pretrain_forked(2, *STEPS, *overlap, output=tmp_path / "out")
    for iteration in (1, 2):
        saved = TorchDist(output / "checkpoints" / f"iter_{iteration:07d}")
        names = [name for name in saved.tensors if not name.startswith("optimizer.")]
        assert len(names) == 9
        for name in names:
            weight, copy = (
                saved.rows(key, (), 0, saved.shape(key, ())[0])
                for key in (name, f"optimizer.state.param.{name}")
            )
            assert torch.equal(weight, copy), (iteration, name)


@pytest.mark.multiprocess
def test_asynchronous_checkpoints_are_the_same(tmp_path, pretrain_forked):
    options = ["training.save_interval=2", "training.eval_iters=0"]
    at_once = pretrain_forked(2, *options, output=tmp_path / "at_once")
    aside = pretrain_forked(2, *options, *ASIDE, output=tmp_path / "aside")
    names = [
        sorted(path.name for path in (run / "checkpoints").glob("iter_*"))
        for run in (at_once, aside)
    ]
    assert names[0] == names[1] == ["iter_0000002", "iter_0000004"]
    rewind(aside, 2)
    pretrain_forked(2, *options, *ASIDE, output=aside)
    assert_same_losses(aside, at_once)
    # both formats of the optimizer's state hold the same numbers
    reshard.main(["--megatron", str(aside / "checkpoints"), "--output", str(tmp_path / "reshard")])
    expected = TorchDist(at_once / "checkpoints" / "iter_0000004")
    actual = TorchDist(tmp_path / "reshard" / "iter_0000004")
    assert actual.tensors.keys() == expected.tensors.keys()
    for name in expected.tensors:
        rows = expected.shape(name, ())[0]
        assert actual.rows(name, (), 0, rows).equal(expected.rows(name, (), 0, rows)), name
    assert actual.common()["optimizer"] == expected.common()["optimizer"]
    assert [record["step"] for record in log(at_once, "checkpoint")] == [2, 4]
    assert [record["step"] for record in log(aside, "checkpoint_published")] == [2, 4]
    for run, kind in ((at_once, "checkpoint"), (aside, "checkpoint_published")):
        for record in log(run, kind):
            assert record["checkpoint_stall"] == pytest.approx(sum(record["phases"].values()))
            assert record["phases"]["wait"] > 0 and record["phases"]["publish"] > 0


def test_the_time_of_a_phase_excludes_the_phases_inside(monkeypatch):
    now = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    stall = Stall()
    with stall.phase("fork"), stall.phase("copy"):
        pass
    assert stall.record() == {"checkpoint_stall": 10.0, "phases": {"copy": 3.0, "fork": 7.0}}


@pytest.mark.parametrize("with_hashes", [True, False])
def test_the_writer_hashes_what_it_wrote(tmp_path, group_of_one, with_hashes, monkeypatch):
    file = tmp_path / "__0_0.distcp"
    request = AsyncRequest(lambda *_: file.write_bytes(b"weights"), (), [])
    hashed = integrity.hash_when_written(request, tmp_path)
    hashed.async_fn(0, [(str(file), file.name, ())], None)
    gone = tmp_path / "removed"  # as that of a killed run
    integrity.hash_when_written(request, gone).async_fn(0, [(str(file), file.name, ())], None)
    assert not gone.exists()
    if with_hashes:
        monkeypatch.setattr(manifest, "sha256", None)  # not computed again
    else:  # the writer was killed in between
        next(tmp_path.glob(".sha256_*")).unlink()
    integrity.seal(tmp_path, 1, [1, 1, 1])
    assert not list(tmp_path.glob(".sha256_*"))
    (record,) = manifest.read(tmp_path)["outputs"]
    assert record["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_a_full_disk_is_reported_in_one_line():
    from torch.distributed.checkpoint.api import CheckpointException, _wrap_exception

    from megatron_ext.checkpoint.sharded import writing

    failures = {
        rank: _wrap_exception(RuntimeError("Worker failure: [Errno 28] No space left on device"))
        for rank in (0, 3)
    }
    message = (
        r"cannot write the checkpoint run: Worker failure: \[Errno 28\] No space left on device;"
        r" fix that"
    )
    with pytest.raises(DataError, match=message), writing("run"):
        raise CheckpointException("write", failures)
    archive = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    message = r"run: the disk is full, or .* \(\[enforce fail .* 598\); fix that"
    with pytest.raises(DataError, match=message), writing("run"):
        raise CheckpointException("write", {1: _wrap_exception(archive)})


@pytest.mark.parametrize(
    ("failed_ranks", "message"),
    [
        ([2, 1], "run: the writing process of rank 1, 2 was killed, most likely for lack of m"),
        ([], "run: another process failed, see the message of rank 0"),  # on any other rank
    ],
)
def test_a_killed_writer_is_reported(failed_ranks, message):
    from torch.distributed.checkpoint.api import CheckpointException, _wrap_exception

    from megatron_ext.checkpoint.sharded import writing

    no_report = RuntimeError("results_queue should not be empty")
    failures = {rank: _wrap_exception(no_report) for rank in failed_ranks}
    with pytest.raises(DataError, match=message), writing("run"):
        raise CheckpointException("write", failures)


def test_results_of_a_forked_writer_arrive_once():
    from megatron_ext.checkpoint.sharded import _WriteResults

    results = _WriteResults()
    for value in ({0: ["x" * 200_000]}, RuntimeError("disk full"), {0: []}):
        writer = multiprocessing.get_context("fork").Process(target=results.put, args=(value,))
        writer.start()
        writer.join()
        assert repr(results.get_nowait()) == repr(value)
        with pytest.raises(queue.Empty):
            results.get_nowait()


def test_a_writer_ends_with_a_killed_process_of_its_own():
    def write(rank, write_buckets, results):
        context = multiprocessing.get_context("fork")
        part = context.Process(target=time.sleep, args=(60,))
        part.start()
        threading.Timer(0.2, part.kill).start()
        time.sleep(60)  # as Megatron Core, for the report

    writer = multiprocessing.get_context("fork").Process(
        target=integrity._write_and_hash, args=(write, Path("run"), 0, [], None)
    )
    writer.start()
    writer.join(20)
    code = writer.exitcode
    writer.kill()
    assert code == 1


@pytest.fixture
def holds(tmp_path):
    """Two folders that hold writers back; they are let go whatever happens."""
    folders = [tmp_path / "first", tmp_path / "second"]
    yield folders
    for folder in folders:
        if folder.exists():
            (folder / "go").touch()


def held_writer(folder, run):
    """Return the process that is about to write a file of a checkpoint, and is held there."""
    deadline = time.monotonic() + 300
    while not (markers := list(folder.glob("writer_*"))):
        assert time.monotonic() < deadline, run.written.read_text()
        time.sleep(0.01)
    return psutil.Process(int(markers[0].name.removeprefix("writer_")))


@pytest.mark.multiprocess
def test_an_old_writer_cannot_touch_the_files_of_the_next_start(
    tmp_path, start_forked, checkpoint, data, holds
):
    output, recipe = tmp_path / "out", tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    arguments = [
        recipe,
        "training.async_save=true",
        "training.save_interval=2",
        "training.eval_iters=0",
    ]
    first = start_forked(1, *arguments, hold=holds[0])
    orphan = held_writer(holds[0], first)
    os.kill(first.pids[0], signal.SIGKILL)
    assert first.wait()[0] == [-signal.SIGKILL]
    assert orphan.is_running()

    second = start_forked(1, *arguments, hold=holds[1])
    held_writer(holds[1], second)  # both starts are in the checkpoint of step 2
    (holds[0] / "go").touch()
    assert not psutil.wait_procs([orphan], timeout=300)[1]
    assert not list(output.glob("checkpoints/.iter_*/*.distcp")), (
        "the orphan wrote into the folder of the second start"
    )
    (holds[1] / "go").touch()
    codes, written = second.wait()
    assert codes == [0], written[-3000:]
    assert not list(output.glob("checkpoints/.iter_*"))
    for iteration in (2, 4):
        folder = output / "checkpoints" / f"iter_{iteration:07d}"
        for record in manifest.read(folder, "checkpoint")["outputs"]:
            assert manifest.sha256(folder / record["path"]) == record["sha256"]
