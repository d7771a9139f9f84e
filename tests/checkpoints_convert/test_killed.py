"""A converter killed with SIGKILL at any point and restarted gives the same bytes.

The command is the same.

GALEN_KILLS, 2 where it is not set, is how often each converter is killed; the two that are used
most, at least 16 times.
"""

import json
import os
import shutil
import subprocess
import time

import psutil
import pytest

from checkpoints_convert import hf_to_megatron, megatron_to_nemo
from tests.checkpoints_convert.buckets import with_optimizer
from tests.checkpoints_convert.interop.test_megatron_lm_legacy import write_ranks
from tests.conftest import ROOT, command

KILLS = int(os.environ.get("GALEN_KILLS", "2"))
POINTS = {"hf_to_megatron": max(16, KILLS), "megatron_to_hf": max(16, KILLS)}


@pytest.fixture(scope="module")
def inputs(make_model, tmp_path_factory):
    """A folder with a model in each form that a converter reads."""
    base = tmp_path_factory.mktemp("killed")
    shutil.copytree(make_model("qwen2"), base / "hf")
    hf_to_megatron.main(["--hf", str(base / "hf"), "--output", str(base / "megatron")])
    megatron_to_nemo.main(["--megatron", str(base / "megatron"), "--output", str(base / "nemo")])
    shutil.copytree(base / "megatron" / "iter_0000000", base / "foreign" / "iter_0000000")
    for name in ("architecture.json", "manifest.json", "run_config.yaml"):
        (base / "foreign" / "iter_0000000" / name).unlink()
    (base / "foreign" / "latest_checkpointed_iteration.txt").write_text("0")
    with_optimizer(base / "megatron", base / "run")
    shutil.copytree(base / "megatron", base / "other")
    write_ranks(make_model("llama-2"), base / "legacy", 2, 1)
    return base


@pytest.fixture(scope="module")
def killer():
    """The process that converts and kills."""
    with subprocess.Popen(
        command("-m", "tests.checkpoints_convert.killed_at"),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "given"),
    {
        "hf_to_megatron": ["--hf", "hf"],
        "megatron_to_hf": ["--megatron", "megatron", "--max-shard-bytes", "60000"],
        "megatron_to_nemo": ["--megatron", "megatron"],
        "reshard": ["--megatron", "run"],
        "average": ["--megatron", "megatron", "other"],
        "nemo_to_megatron": ["--nemo", "nemo"],
        "legacy_to_megatron": ["--legacy", "legacy", "--tokenizer", "hf"],
        "register_checkpoint": ["--hf", "hf"],
    }.items(),
)
def test_killed_at_many_points(tmp_path, inputs, killer, script, given):
    if script == "register_checkpoint":
        shutil.copytree(inputs / "foreign", tmp_path / "given")
    options = [str(inputs / option) if (inputs / option).is_dir() else option for option in given]
    killer.stdin.write(
        json.dumps([script, str(tmp_path), POINTS.get(script, KILLS), options]) + "\n"
    )
    killer.stdin.flush()
    seen = json.loads(killer.stdout.readline())
    print(seen)
    assert seen["wrong"] == []
    assert seen["touched"] > (20 if script == "register_checkpoint" else 100)
    # two threads: the last points may come a little earlier in one run than in another
    assert seen["killed"] >= seen["points"] - 2
    assert script == "register_checkpoint" or seen["went_on"] >= seen["points"] // 3


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    """A process killed with SIGKILL cannot stop its workers.

    If they continued, they would write into the files of the next start.
    """
    with subprocess.Popen(
        command("-m", "tests.checkpoints_convert.endless_steps", tmp_path),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as parent:
        while (
            not (workers := [int(path.name) for path in tmp_path.glob("pids/*")])
            or len(workers) < 2
        ):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    while any(alive(worker) for worker in workers):
        time.sleep(0.05)  # pytest's time limit ends a test that waits in vain


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
