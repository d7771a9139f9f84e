"""Curation as Slurm job arrays gives the bytes that it gives on one machine."""

import json
import pickle
import subprocess
import sys
import time

import pytest

from data_prep import curate
from data_prep.executors import slurm as slurm_executor
from galen.errors import DataError, UsageError
from tests.conftest import ROOT
from tests.data_prep.broken_step import BrokenStep
from tests.data_prep.material import many_records, write_medline


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.jsonl*"))
    }


@pytest.fixture
def recipe(tmp_path):
    for n in range(2):
        write_medline(tmp_path / f"raw/{n}.xml", many_records(1 + 100 * n, 60))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"output: {tmp_path / 'local'}\nsources: [{{reader: medline, path:"
        f" {tmp_path / 'raw'}}}]\nsteps: [abstract, exact_dedup, {{step: minhash_dedup, "
        "num_buckets: 3}]\nshuffle: {}\nsplit: {train: 1, validation: 0, test: 0}\n"
    )
    return path


@pytest.fixture
def slurm(cluster, monkeypatch):
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(slurm_executor, "_POLL_SECONDS", 0.2)


def test_same_bytes_and_a_leftover_job_is_canceled(recipe, tmp_path, slurm):
    curate.main([str(recipe), "--workers", "1"])
    words = [str(recipe), "--executor", "slurm", "--workers", "2", f"output={tmp_path / 'slurm'}"]
    command = [sys.executable, "data_prep/curate.py", *words]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    job_record = tmp_path / ".slurm.partial/log/index_versions/job"
    while not job_record.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "slurm").exists()
    curate.main([*words, "--slurm-args=--time=10"])
    assert bytes_of(tmp_path / "slurm") == bytes_of(tmp_path / "local")
    manifests = [
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("local", "slurm")
    ]
    assert manifests[0]["counts"] == manifests[1]["counts"]


def test_mistakes_are_reported(recipe, tmp_path, slurm):
    with pytest.raises(UsageError, match="sbatch refuses the job"):
        curate.main([str(recipe), "--executor", "slurm", "--slurm-args=--partition=nowhere"])
    with pytest.raises(DataError, match=r"task [01] met a bad file"):
        slurm_executor.SlurmExecutor([BrokenStep()], 2, 2, tmp_path / "log", []).run()
    assert pickle.loads((tmp_path / "log/executor.pickle").read_bytes()).tasks == 2
    assert not (tmp_path / "log/job").exists()
