"""Killed with SIGKILL at random moments, one process or all, a run ends with the bits of one that was left alone.

Seventeen kills under `torchrun`; `tests/slurm/test_pretrain.py` adds three in a batch job. Three more hit processes that start at once (a
fork server), one of them while they start.
"""

import contextlib
import os
import signal
import subprocess

import psutil
import pytest
from safetensors.torch import load_file

from tests.conftest import ROOT, command, run
from tests.megatron_ext.conftest import RECIPE
from tests.megatron_ext.kills import LATE, assert_same_losses, await_moment, new_random, rewind

FORKED = 3
UNDER_TORCHRUN = 17
ARGUMENTS = ["training.train_iters=120", "training.save_interval=4", f"training.keep_every={LATE}", "training.eval_interval=60"]
ARGUMENTS += ["training.micro_batch_size=8", "parallel.pipeline_model_parallel_size=2"]
MOMENTS = ("start", "step", "save")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.multiprocess
def test_many_kills_leave_no_trace(tmp_path, pretrain_forked, start_forked, checkpoint, data):
    undisturbed = pretrain_forked(2, *ARGUMENTS, output=tmp_path / "undisturbed")
    killed, seeded = tmp_path / "killed", new_random()
    killed.mkdir()
    recipe = killed / "given.yaml"
    recipe.write_text(RECIPE.format(output=killed, checkpoint=checkpoint, data=data))

    done, children = 0, []
    while done < FORKED:
        started = start_forked(2, recipe, *ARGUMENTS)
        processes = [psutil.Process(pid) for pid in started.pids]
        if await_moment(MOMENTS[done % 3], killed, seeded, started.written.read_text):
            children += [child for process in processes for child in children_of(process, recursive=True)]
            for process in seeded.choice([processes, processes[:1], processes[1:]]):
                kill(process)
        codes, written = started.wait()
        if -signal.SIGKILL in codes:
            done += 1
        else:  # it was finished before the kill: another try
            assert codes == [0, 0], written[-3000:]
            rewind(killed, LATE)
    assert not psutil.wait_procs(children, timeout=300)[1], "processes outlive the one that started them"

    kill_under_torchrun([recipe, *ARGUMENTS], killed, seeded, tmp_path / "torchrun.log")
    codes, written = start_forked(2, recipe, *ARGUMENTS).wait()
    assert codes == [0, 0], written[-3000:]
    assert_same_losses(killed, undisturbed)
    expected, found = weights(undisturbed, tmp_path / "a"), weights(killed, tmp_path / "b")
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name].equal(expected[name]), name


def weights(output, folder):
    run("checkpoints_convert/megatron_to_hf.py", "--megatron", output / "checkpoints", "--output", folder)
    return load_file(folder / "model.safetensors")


def kill_under_torchrun(arguments, output, seeded, written):
    """Kill one worker, whereupon torchrun ends the other and itself, or now and then torchrun and all its workers at once."""
    done = 0
    while done < UNDER_TORCHRUN:
        torchrun = start_torchrun(arguments, written)
        came = await_moment(MOMENTS[1 + done % 2], output, seeded, written.read_text)
        processes, workers = children_of(torchrun, recursive=True), children_of(torchrun)
        if came and workers:
            for process in [torchrun, *processes] if done % 3 == 2 else [seeded.choice(workers)]:
                kill(process)
        if torchrun.wait() == 0:  # it was finished before the kill: another try
            rewind(output, LATE)
            continue
        assert came and workers, written.read_text()[-3000:]
        assert not psutil.wait_procs(processes, timeout=300)[1], "workers outlive torchrun"
        done += 1


def start_torchrun(arguments, written):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "megatron_ext.pretrain", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with written.open("ab") as file:
        return subprocess.Popen(command(*words), cwd=ROOT, env=environment, stdout=file, stderr=file)


def children_of(process, recursive=False):
    try:
        return psutil.Process(process.pid).children(recursive)
    except psutil.NoSuchProcess:
        return []


def kill(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
