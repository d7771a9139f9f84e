"""A run that is killed and started again ends with the same weights as one that was not."""

import os
import signal
import subprocess
import time

import pytest
from safetensors.torch import load_file

from tests.conftest import ROOT, command, run
from tests.megatron_ext.conftest import RECIPE, launcher, log

LONG = ["training.train_iters=60", "training.save_interval=4", "training.eval_interval=20"]


def weights(output, folder):
    run("checkpoints_convert/megatron_to_hf.py", "--megatron", output / "checkpoints", "--output", folder)
    return load_file(folder / "model.safetensors")


def kill_after_first_checkpoint(output, checkpoint, data, *overrides):
    """Start a run over two processes, wait for its first checkpoint, and kill all of it with SIGKILL."""
    output.mkdir()
    recipe = output / "given.yaml"
    recipe.write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    arguments = command(*launcher(2), "megatron_ext.pretrain", recipe, *overrides)
    process = subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (output / "checkpoints" / "latest_checkpointed_iteration.txt").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended or hung before its first checkpoint"
        time.sleep(0.005)
    for pid in _members(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return recipe


def _members(leader: int) -> list[int]:
    """Processes of the session that `leader` started: torchrun and its workers, which have groups of their own."""
    import psutil

    return [leader, *(child.pid for child in psutil.Process(leader).children(recursive=True))]


@pytest.mark.multiprocess
def test_killed_and_started_again_gives_the_same_weights(tmp_path, pretrain, checkpoint, data):
    overrides = [*LONG, "parallel.pipeline_model_parallel_size=2"]
    undisturbed = pretrain(2, *overrides, output=tmp_path / "undisturbed")
    killed = tmp_path / "killed"
    kill_after_first_checkpoint(killed, checkpoint, data, *overrides)
    steps_before = len(log(killed, "train"))
    assert steps_before < 60
    pretrain(2, *overrides, output=killed)
    expected, found = weights(undisturbed, tmp_path / "a"), weights(killed, tmp_path / "b")
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name].equal(expected[name]), name
    for kind in ("train", "validation"):  # no line lost, none twice
        assert [(r["step"], r["loss"]) for r in log(killed, kind)] == [(r["step"], r["loss"]) for r in log(undisturbed, kind)]


@pytest.mark.multiprocess
def test_goes_on_under_another_layout(tmp_path, pretrain, checkpoint, data):
    tensor, pipeline = "parallel.tensor_model_parallel_size=2", "parallel.pipeline_model_parallel_size=2"
    undisturbed = pretrain(1, *LONG, output=tmp_path / "undisturbed")
    changed = tmp_path / "changed"
    kill_after_first_checkpoint(changed, checkpoint, data, *LONG, tensor)
    pretrain(2, *LONG, pipeline, output=changed)
    for expected, found in zip(log(undisturbed, "train"), log(changed, "train"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.multiprocess
def test_finished_and_other_runs(pretrain):
    output = pretrain(1)
    before = (output / "log.jsonl").read_bytes()
    again = pretrain(1, output=output, check=False)
    assert again.returncode == 0 and "finished already" in again.stderr
    assert (output / "log.jsonl").read_bytes() == before
    other = run("-m", "megatron_ext.pretrain", output / "given.yaml", "optimizer.lr=0.5", check=False)
    assert other.returncode == 2
    assert "optimizer.lr: 0.001 there, 0.5 now" in other.stderr
