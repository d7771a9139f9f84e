"""Messages of scripts started without their arguments; no Slurm needed."""

import subprocess

import pytest

from tests.slurm.cluster import ROOT

SCRIPTS = sorted(
    path.name
    for path in (ROOT / "slurm").glob("*.sh")
    if path.name not in ("galen.sh", "site.example.sh")
)


def start(script, *arguments, **environment):
    words = ["bash", f"slurm/{script}", *arguments]
    return subprocess.run(
        words,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_by_hand(script):
    done = start(script, "--help")
    assert (
        done.returncode == 0 and f"slurm/{script} " in done.stdout and "SBATCH" not in done.stdout
    )
    assert done.stderr == ""


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "pipeline.sh"])
def test_a_batch_job_started_by_hand(script):
    done = start(script, "a", "b")
    assert done.returncode == 2 and f"this is a batch job: sbatch slurm/{script}" in done.stderr


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("convert.sh", "unknown converter: none"),
        ("pretrain_7b.sh", "the recipe is missing"),
        ("pretrain_70b.sh", "the recipe is missing"),
    ],
)
def test_a_job_without_arguments(script, message):
    done = start(script, SLURM_JOB_ID="1", SLURM_SUBMIT_DIR=str(ROOT))
    assert (
        done.returncode == 2 and message in done.stderr and f"sbatch slurm/{script}" in done.stdout
    )


def in_a_job(script, **environment):
    """Run shell that uses the shared functions, as in a job."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "SLURM_JOB_ID": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        **environment,
    }
    words = ["bash", "-c", f"source slurm/galen.sh; {script}"]
    return subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_slurm_that_does_not_requeue():
    done = in_a_job("squeue() { echo RUNNING; }; scontrol() { [[ $2 == show ]]; }; galen_requeue")
    assert done.returncode == 1 and "submit the same command again" in done.stderr


def test_a_slurm_where_jobs_cannot_submit_jobs():
    array = {
        "SLURM_ARRAY_TASK_COUNT": "8",
        "SLURM_ARRAY_TASK_MAX": "7",
        "SLURM_ARRAY_TASK_ID": "0",
        "SLURM_ARRAY_JOB_ID": "1",
    }
    done = in_a_job(
        'sbatch() { return 1; }; galen_run() { echo "$*"; }; galen_preprocess --input a', **array
    )
    assert done.returncode == 0 and "--shards 8 --shard 0 --input a" in done.stdout
    assert "GALEN_MERGE=8 sbatch --array=0 slurm/preprocess.sh" in done.stderr
