"""A run killed with SIGKILL at random moments ends with the bits of an undisturbed one.

One process is killed, or all. Three kills hit processes that started by themselves, one of them
while they start, the others those of `torchrun`; GALEN_KILLS sets how many there are in all (5).
Every other start saves asynchronously. `tests/slurm/test_pretrain.py` adds three in a batch job.
The processes are forked from one that has imported the libraries.
"""

import contextlib
import itertools
import os
import re

import psutil
import pytest

from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.checkpoint.torch_dist import TorchDist
from tests.megatron_ext.conftest import RECIPE, goodput, log
from tests.megatron_ext.kills import LATE, assert_same_losses, await_moment, new_random, rewind

KILLS = int(os.environ.get("GALEN_KILLS", "5"))
MOMENTS = ["start", *itertools.islice(itertools.cycle(("step", "save")), KILLS - 1)]
BY_THEMSELVES = 3
ARGUMENTS = [
    "training.train_iters=80",
    "training.micro_batch_size=8",
    "parallel.pipeline_model_parallel_size=2",
]
ARGUMENTS += [
    f"training.eval_interval={LATE}",
    "training.save_interval=4",
    f"training.keep_every_n_steps={LATE}",
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.multiprocess
def test_many_kills_leave_no_trace(tmp_path, pretrain_forked, start_forked, checkpoint, data):
    undisturbed = pretrain_forked(
        2, *ARGUMENTS, f"training.save_interval={LATE}", output=tmp_path / "undisturbed"
    )
    killed, seeded = tmp_path / "killed", new_random()
    killed.mkdir()
    recipe = killed / "given.yaml"
    recipe.write_text(RECIPE.format(output=killed, checkpoint=checkpoint, data=data))

    done = 0
    starts = []
    while done < len(MOMENTS):
        torchrun = done >= BY_THEMSELVES
        asynchronous = str(done % 2 == 1).lower()
        options = [*ARGUMENTS, f"training.async_save={asynchronous}"]
        started = start_forked(2, recipe, *options, torchrun=torchrun)
        came = await_moment(MOMENTS[done], killed, seeded, started.written.read_text)
        first = existing(started.pids) if came else []
        ranks = children_of(first) if torchrun else first
        others = children_of(ranks, recursive=True)
        if ranks:
            for process in [*first, *ranks] if done % 3 == 2 else [seeded.choice(ranks)]:
                kill(process)
        codes, written = started.wait()
        assert not psutil.wait_procs([*ranks, *others], timeout=300)[1], (
            "processes outlive the one that started them"
        )
        starts += steps_of_start(killed, written)
        if any(codes):
            assert ranks, written[-3000:]
            done += 1
        else:  # it was finished before the kill: another try
            rewind(killed, LATE)

    codes, written = start_forked(2, recipe, *ARGUMENTS).wait()
    assert codes == [0, 0], written[-3000:]
    starts += steps_of_start(killed, written)
    assert_lost_steps(killed, starts)
    assert_same_losses(killed, undisturbed)
    expected, found = tensors(undisturbed), tensors(killed)
    assert expected.keys() == found.keys() and any(
        name.startswith("optimizer.") for name in expected
    )
    for name in expected:
        assert found[name].equal(expected[name]), name


def steps_of_start(output, written):
    """Return the step from which a start resumed and its last step, as [pair].

    Empty when it did not come so far.
    """
    if "parameters on cpu" not in written:
        return []
    resumed = re.search(r"resuming from step (\d+)", written)
    first = int(resumed[1]) if resumed else 0
    return [(first, max([first, *(record["step"] for record in log(output, "train"))]))]


def assert_lost_steps(output, starts):
    """Compare the lost steps of the goodput with those of the log when each start ended."""
    expected = 0
    for (first, last), (resumed, _) in itertools.pairwise(starts):
        assert resumed >= first, "kills damage no checkpoint"
        expected += max(0, last - resumed)
    found = goodput(output)
    # a kill of rank 0 can hit it between the two files
    assert abs(found.lost_steps - expected) <= len(starts)
    assert found.parts["lost"] > 0
    assert {start.cause for start in found.starts} <= {"crash", "finished"}


def tensors(output):
    """Return all that the newest checkpoint holds: weights, and the optimizer's state."""
    saved = TorchDist(checkpoint_folder.newest(output / "checkpoints"))
    return {name: saved.rows(name, (), 0, saved.shape(name, ())[0]) for name in saved.tensors}


def existing(pids):
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def children_of(processes, recursive=False):
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.children(recursive)
    return found


def kill(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
