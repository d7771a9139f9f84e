"""`sbatch slurm/pretrain_70b.sh` with a tiny model: a bad node, the time limit, a node that dies, and the end of the recipe."""

import contextlib
import json

import psutil

from tests.megatron_ext.conftest import RECIPE, log

STEPS = 250
# What a node with a broken GPU says; the others have the eight that the job asked for.
NVIDIA_SMI = """#!/bin/bash
for gpu in 0 1 2 3 4 5 6 7; do
  if [[ $SLURMD_NODENAME == n1 && $gpu == 5 ]]; then echo "$gpu, 3, No, No, Not Active"; else echo "$gpu, 0, No, No, Not Active"; fi
done
"""


@contextlib.contextmanager
def paused(recipe):
    """Hold the training processes of a recipe, so that nothing hangs on how fast this machine trains."""
    found = [process for process in psutil.process_iter() if is_training(process, recipe)]
    for process in found:
        process.suspend()
    yield
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def is_training(process, recipe):
    with contextlib.suppress(psutil.Error):
        command = process.cmdline()
        return str(recipe) in command and "megatron_ext.pretrain" in command and "python" in process.name()
    return False


def test_until_the_last_step(cluster, site, tmp_path, checkpoint, data, pretrain):
    """One job: node n1 is left out, the time limit queues it again, a dead node as well, and it ends with all its steps."""
    folder = tmp_path / "a run's folder"
    folder.mkdir()
    recipe = folder / "tiny recipe.yaml"
    recipe.write_text(RECIPE.format(output=json.dumps(str(folder / "run")), checkpoint=checkpoint, data=data))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(0o755)
    written, output = folder / "job.log", folder / "run"

    def told():
        return written.read_text() if written.exists() else "no output of the job"

    def steps():
        path = output / "log.jsonl"
        return path.read_text().count('"train"') if path.exists() else 0

    overrides = [f"training.train_iters={STEPS}", "training.save_interval=10", "training.eval_interval=100000", "training.eval_iters=1"]
    job = cluster.sbatch(
        *("--nodes=2", "--ntasks-per-node=1", f"--output={written}", "slurm/pretrain_70b.sh", recipe, *overrides),
        **{**site, "PATH": f"{programs}:{site['PATH']}"},
    )

    cluster.until(job, "the first start leaves node n1 out", lambda job: job.get("ExcNodeList") == "n1", told)
    assert "node n1 is left out: GPU 5 has uncorrected memory errors: 3" in told()

    now = cluster.until(job, "steps", lambda _: steps() > 20, told)
    restarts = int(now["Restarts"])
    before_limit = steps()
    with paused(recipe):  # Slurm looks at time limits twice a minute
        cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=5")  # minutes: the script wants its signal ten before the end
        cluster.until(job, "the signal", lambda _: "the time limit is near" in told(), told)
    cluster.until(job, "the time limit queues it again", lambda job: int(job["Restarts"]) > restarts, told)
    cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=120")
    assert "the run was asked to stop early" in told() and "starting again" in told()
    stopped = steps()
    assert before_limit <= stopped < STEPS

    now = cluster.until(job, "more steps", lambda _: steps() > stopped, told)
    restarts = int(now["Restarts"])
    first, second = cluster.command("scontrol", "show", "hostnames", now["NodeList"]).split()
    assert "n1" not in (first, second)
    with paused(recipe):
        cluster.kill_node(second)
    # what a site's health check does; Slurm finds out by itself, but takes minutes
    cluster.command("scontrol", "update", f"NodeName={second}", "State=DOWN", "Reason=it died")
    cluster.until(job, "the dead node queues it again", lambda job: int(job["Restarts"]) > restarts, told)
    done = cluster.wait(job, told)
    assert done["JobState"] == "COMPLETED", told()
    assert second not in cluster.command("scontrol", "show", "hostnames", done["NodeList"]).split()
    undisturbed, disturbed = log(pretrain(2, *overrides), "train"), log(output, "train")
    assert [record["step"] for record in disturbed] == list(range(1, STEPS + 1))
    for key in ("loss", "grad_norm", "consumed_samples"):  # to the last bit
        assert [record[key] for record in disturbed] == [record[key] for record in undisturbed]
    assert (output / "manifest.json").is_file()
    cluster.start_node(second)
    cluster.command("scontrol", "update", f"NodeName={second}", "State=RESUME")
