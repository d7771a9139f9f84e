"""What the scripts say that were started without what they need. No Slurm is needed for that."""

import subprocess

import pytest

from tests.slurm.cluster import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "slurm").glob("*.sh") if path.name not in ("galen.sh", "site.example.sh"))


def start(script, *arguments, **environment):
    words = ["bash", f"slurm/{script}", *arguments]
    return subprocess.run(words, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_by_hand(script):
    done = start(script, "--help")
    assert done.returncode == 0 and f"slurm/{script} " in done.stdout and "SBATCH" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "pipeline.sh"])
def test_a_batch_job_started_by_hand(script):
    done = start(script, "a", "b")
    assert done.returncode == 2 and f"this is a batch job: sbatch slurm/{script}" in done.stderr


@pytest.mark.parametrize(
    ("script", "said"), [("convert.sh", "which program?"), ("pretrain_7b.sh", "which recipe?"), ("pretrain_70b.sh", "which recipe?")]
)
def test_a_job_without_arguments(script, said):
    done = start(script, SLURM_JOB_ID="1", SLURM_SUBMIT_DIR=str(ROOT))
    assert done.returncode == 2 and said in done.stderr and f"sbatch slurm/{script}" in done.stdout


def test_a_slurm_that_queues_no_job_again():
    script = "source slurm/galen.sh; squeue() { echo RUNNING; }; scontrol() { [[ $2 == show ]]; }; galen_requeue"
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "submit the same command again" in done.stderr
