"""`sbatch slurm/pretrain_70b.sh` with a tiny model.

It meets a bad node, a killed process, the time limit, a dying node and the recipe's end.

The steps run through the stand-in `srun` of this folder, which sets what Pyxis sets for images with
PyTorch.
"""

import contextlib
import json

import psutil
import pytest

from megatron_ext.checkpoint import checkpoint_folder
from tests.megatron_ext.conftest import RECIPE, goodput
from tests.megatron_ext.kills import assert_same_losses, await_moment, last_step, new_random

STEPS = 200
# What a node with a broken GPU says; the others have the eight that the job asked for.
NVIDIA_SMI = """#!/bin/bash
for gpu in 0 1 2 3 4 5 6 7; do
  errors=0
  if [[ $SLURMD_NODENAME == n1 && $gpu == 5 ]]; then errors=3; fi
  echo "$gpu, $errors, No, No, Not Active"
done
"""


@contextlib.contextmanager
def paused(recipe):
    """Hold a recipe's training processes and their writers.

    So nothing depends on how fast this machine trains.
    """
    processes = [
        process for rank in training(recipe) for process in (rank, *rank.children(recursive=True))
    ]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    yield
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def training(recipe):
    """Return the training processes of a recipe, one for each rank."""
    return [process for process in psutil.process_iter() if is_rank(process, recipe)]


def is_rank(process, recipe):
    with contextlib.suppress(psutil.Error):
        command = process.cmdline()
        if (
            str(recipe) in command
            and "megatron_ext.pretrain" in command
            and "python" in process.name()
        ):
            # those that write a checkpoint are children of the ranks
            return "python" not in process.parent().name()
    return False


def assert_goodput(output, lost_steps):
    """Compare the goodput with the causes of the ends, and the lost steps of each start."""
    found = goodput(output)
    causes = ["crash", "time limit", "node failure", "finished"]
    assert [start.cause for start in found.starts] == causes, found.starts
    for start, expected in zip(found.starts, lost_steps, strict=True):
        # a kill can hit rank 0 between the two files
        assert abs(start.lost_steps - expected) <= 1, (start, expected)
    assert lost_steps[1] == found.starts[1].lost_steps == 0
    for start in found.starts[1:]:  # the cluster delays a requeued job by two seconds
        assert start.parts["queue"] >= 1 and start.startup["launch"] > 0
    assert found.parts["lost"] > 0 and found.save_interval.failures == 2


@pytest.mark.slow
def test_until_the_last_step(cluster, contained, tmp_path, checkpoint, data, start_forked):
    """One job survives a bad node, a killed process, the time limit and a dead node.

    Node n1 is excluded, the other faults queue the job again, and it ends with all its steps.
    """
    folder = tmp_path / "a run's folder"
    folder.mkdir()
    recipe = folder / "tiny recipe.yaml"
    recipe.write_text(
        RECIPE.format(output=json.dumps(str(folder / "run")), checkpoint=checkpoint, data=data)
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(0o755)
    site = contained("pyxis")
    written, output, seeded = folder / "job.log", folder / "run", new_random()

    def describe():
        return written.read_text() if written.exists() else "no output of the job"

    def goes_on():
        """Wait until the job is beyond the next checkpoint; return its number of restarts."""
        since = last_step(output)
        return int(
            cluster.until(job, "further steps", lambda _: last_step(output) > since + 10, describe)[
                "Restarts"
            ]
        )

    def is_queued_again(restarts, why):
        cluster.until(
            job, f"{why} queues it again", lambda job: int(job["Restarts"]) > restarts, describe
        )

    def steps_after_checkpoint():
        """Return the steps that the next start does again."""
        return last_step(output) - checkpoint_folder.latest_iteration(output / "checkpoints")

    overrides = [
        f"training.train_iters={STEPS}",
        "training.save_interval=10",
        "training.eval_interval=100000",
        "training.eval_iters=1",
    ]
    job = cluster.sbatch(
        *(
            "--nodes=2",
            "--ntasks-per-node=1",
            f"--output={written}",
            "slurm/pretrain_70b.sh",
            recipe,
            *overrides,
        ),
        **{**site, "PATH": f"{programs}:{site['PATH']}"},
    )

    cluster.until(
        job,
        "the first start leaves node n1 out",
        lambda job: job.get("ExcNodeList") == "n1",
        describe,
    )
    assert "excluding node n1: GPU 5 has uncorrected memory errors: 3" in describe()

    restarts = goes_on()
    assert await_moment("step", output, seeded, describe)
    seeded.choice(training(recipe)).kill()
    is_queued_again(restarts, "a killed process")
    lost_steps = [steps_after_checkpoint()]

    restarts = goes_on()
    before_limit = last_step(output)
    with paused(recipe):
        # Slurm looks at limits twice a minute
        undisturbed = start_forked(2, recipe, *overrides, f"output={tmp_path / 'undisturbed'}")
        # minutes: the script wants its signal ten before the end
        cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=5")
        cluster.until(job, "the signal", lambda _: "the time limit is near" in describe(), describe)
    is_queued_again(restarts, "the time limit")
    lost_steps.append(steps_after_checkpoint())
    cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=120")
    assert "the run was asked to stop early" in describe() and "restarting" in describe()
    assert before_limit <= last_step(output) < STEPS

    restarts = goes_on()
    first, second = cluster.command(
        "scontrol", "show", "hostnames", cluster.job(job)["NodeList"]
    ).split()
    assert "n1" not in (first, second)
    assert await_moment("save", output, seeded, describe)
    with paused(recipe):
        cluster.kill_node(second)
    # what a site's health check does; Slurm finds out by itself, but takes minutes
    cluster.command("scontrol", "update", f"NodeName={second}", "State=DOWN", "Reason=it died")
    is_queued_again(restarts, "the dead node")
    lost_steps.append(steps_after_checkpoint())
    done = cluster.wait(job, describe)
    assert done["JobState"] == "COMPLETED", describe()
    assert second not in cluster.command("scontrol", "show", "hostnames", done["NodeList"]).split()
    codes, printed = undisturbed.wait()
    assert codes == [0, 0], printed
    assert_same_losses(output, tmp_path / "undisturbed")
    # the nodes met, whatever the container told them of their places
    assert "all-reduce between two nodes" in describe()
    assert (output / "manifest.json").is_file()
    assert_goodput(output, [*lost_steps, 0])
    cluster.start_node(second)
    cluster.command("scontrol", "update", f"NodeName={second}", "State=RESUME")
