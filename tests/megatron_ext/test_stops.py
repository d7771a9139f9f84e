"""A run is asked to stop, or hangs."""

import json
import os
import signal
import time

import psutil
import pytest

from tests.megatron_ext.conftest import RECIPE, log

LONG = ["training.train_iters=100000", "training.eval_interval=100000", "training.save_interval=100000"]


@pytest.fixture
def start(tmp_path, start_forked, checkpoint, data):
    """Start a long run over two processes and wait for its first step; end it whatever happens."""
    output = tmp_path / "out"
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    begun = []

    def start(*overrides):
        run = start_forked(2, tmp_path / "r.yaml", *LONG, *overrides)
        begun.append(run)
        deadline = time.monotonic() + 300
        while not ((output / "log.jsonl").exists() and log(output, "train")):
            assert time.monotonic() < deadline, run.written.read_text()
            time.sleep(0.01)
        return run, output

    yield start
    for pid in begun[0].pids:
        if os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
            os.kill(pid, signal.SIGKILL)


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_to_one_process_stops_all_with_a_checkpoint(start, number):
    run, output = start("resilience.straggler_interval=1", "resilience.straggler_ratio=1.0000001", "data.num_workers=1")
    asked = psutil.Process(run.pids[1])
    for process in (*asked.children(recursive=True), asked):  # as Slurm does: those that read ahead get it too
        process.send_signal(number)
    codes, written = run.wait()
    assert codes == [75, 75], written[-3000:]
    stopped = json.loads((output / "stopped.json").read_text())
    assert stopped["reason"] == number.name
    assert (output / "checkpoints" / f"iter_{stopped['iteration']:07d}" / "manifest.json").is_file()
    assert log(output, "train")[-1]["step"] == stopped["iteration"]
    slow = [record for event in log(output, "slow_ranks") for record in event["ranks"]]
    assert slow and all(record["rank"] in (0, 1) and record["seconds"] >= record["median"] > 0 for record in slow)


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_others_ends_at_a_signal(start_forked, tmp_path, checkpoint, data, number):
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=tmp_path / "out", checkpoint=checkpoint, data=data))
    run = start_forked(1, tmp_path / "r.yaml", "resilience.distributed_timeout_minutes=2", missing=1)
    waiting = psutil.Process(run.pids[0])
    deadline = time.monotonic() + 300
    while not any(connection.status == psutil.CONN_LISTEN for connection in waiting.net_connections()):
        assert time.monotonic() < deadline, run.written.read_text()
        time.sleep(0.01)
    waiting.send_signal(number)
    assert run.wait()[0] == [-number]
    assert not (tmp_path / "out").exists()


@pytest.mark.multiprocess
def test_a_time_limit(pretrain_forked, tmp_path):
    codes, written = pretrain_forked(1, *LONG, "resilience.exit_duration_in_mins=0.0001", output=tmp_path / "out", check=False)
    assert codes == [75], written[-3000:]
    assert "stopped after step 1 (time limit), checkpoint written" in written


@pytest.mark.multiprocess
def test_a_process_that_hangs_is_named(start):
    run, _ = start("resilience.distributed_timeout_minutes=0.15")
    os.kill(run.pids[1], signal.SIGSTOP)
    deadline = time.monotonic() + 300
    while "it waits for" not in run.written.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(run.pids[1], signal.SIGKILL)
    codes, written = run.wait()
    assert codes == [1, -signal.SIGKILL]
    assert f"it waits for rank 1 on {os.uname().nodename} (process {run.pids[1]})" in written
