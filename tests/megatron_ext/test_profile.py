"""A run is profiled: traces, tables, timers; its losses stay the same."""

import gzip
import json

import pytest

from tests.megatron_ext.conftest import RECIPE, log
from tests.megatron_ext.kills import assert_same_losses


def trace(path):
    """Return the names in a Chrome trace."""
    with gzip.open(path) as file:
        return {event.get("name") for event in json.load(file)["traceEvents"]}


@pytest.mark.multiprocess
def test_a_slow_gpu_of_a_tensor_parallel_group_is_named_alone(
    start_forked, alone, checkpoint, data, tmp_path
):
    output = tmp_path / "out"
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    keys = [
        "parallel.tensor_model_parallel_size=2",
        "resilience.straggler_interval=2",
        "resilience.straggler_ratio=20",
        "profile.steps=[2,3]",
        "profile.ranks=[1]",
        "profile.record_shapes=true",
    ]
    run = start_forked(
        2, "slow", tmp_path / "r.yaml", *keys, module="tests.megatron_ext.faulty_rank"
    )
    codes, written = run.wait()
    assert codes == [0, 0], written[-3000:]
    slow = [record for event in log(output, "slow_ranks") for record in event["ranks"]]
    assert [(record["rank"], record["probe"]) for record in slow] == [(1, "gemm"), (1, "gemm")]
    assert {path.name for path in (output / "profile").iterdir()} == {
        "rank_00001_steps_2-3.trace.json.gz",
        "rank_00001_steps_2-3.txt",
    }
    assert f"profile of steps 2 to 3: {output / 'profile'}" in written
    names = trace(output / "profile/rank_00001_steps_2-3.trace.json.gz")
    assert {"data", "forward_backward", "gradient_sync", "optimizer", "validation"} <= names
    assert "aten::mm" in (output / "profile/rank_00001_steps_2-3.txt").read_text()
    for expected, actual in zip(log(alone, "train"), log(output, "train"), strict=True):
        assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        timers = actual["timers"]
        assert {"data", "forward_backward", "gradient_sync", "optimizer"} <= timers.keys()
        assert min(timers.values()) >= 0 and timers["forward_backward"] > timers["data"]
    assert "checkpoint" not in log(output, "train")[0]["timers"]


@pytest.mark.multiprocess
def test_a_resumed_run_profiles_the_remaining_steps(pretrain_forked, alone, tmp_path):
    output = tmp_path / "out"
    stop = "resilience.exit_duration_in_mins=0.0001"
    codes, written = pretrain_forked(1, "profile.steps=[1,3]", stop, output=output, check=False)
    assert codes == [75], written[-3000:]
    pretrain_forked(1, "profile.steps=[1,3]", output=output)
    names = sorted(path.name for path in (output / "profile").glob("*.gz"))
    assert names == [f"rank_00000_steps_{steps}.trace.json.gz" for steps in ("1-1", "2-3")]
    assert_same_losses(output, alone)
