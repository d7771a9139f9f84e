"""A run is asked to stop, or hangs."""

import json
import os
import re
import signal
import subprocess
import time

import numpy
import psutil
import pytest

from megatron_ext.checkpoint import optimizer_buckets
from tests.conftest import ROOT, command
from tests.megatron_ext.conftest import RECIPE, goodput, log, write
from tests.megatron_ext.kills import assert_same_losses

LONG = [
    "training.train_iters=100000",
    "training.eval_interval=100000",
    "training.save_interval=100000",
]


@pytest.fixture
def start(tmp_path, start_forked, checkpoint, data):
    """Start a long run over two processes and wait for its first step; end it whatever happens."""
    output = tmp_path / "out"
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    begun = []

    def start(*overrides, fault=None):
        arguments = [tmp_path / "r.yaml", *LONG, *overrides]
        if fault is None:
            run = start_forked(2, *arguments)
        else:
            run = start_forked(2, fault, *arguments, module="tests.megatron_ext.faulty_rank")
        begun.append(run)
        deadline = time.monotonic() + 300
        while not ((output / "log.jsonl").exists() and log(output, "train")):
            assert time.monotonic() < deadline, run.written.read_text()
            time.sleep(0.01)
        return run, output

    yield start
    for pid in begun[0].pids if begun else ():
        if os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
            os.kill(pid, signal.SIGKILL)


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_stops_all_with_a_checkpoint(start, number):
    run, output = start(
        "resilience.straggler_interval=1",
        "resilience.straggler_ratio=1.0000001",
        "data.num_workers=1",
    )
    process_to_stop = psutil.Process(run.pids[1])
    # as Slurm does: those that read ahead get it too
    for process in (*process_to_stop.children(recursive=True), process_to_stop):
        process.send_signal(number)
    codes, written = run.wait()
    assert codes == [75, 75], written[-3000:]
    stopped = json.loads((output / "stopped.json").read_text())
    assert stopped["reason"] == number.name
    found = goodput(output)
    assert [start.cause for start in found.starts] == ["preemption signal"]
    assert (found.lost_steps, found.starts[0].saves) == (0, 1)
    last_checkpoint = output / "checkpoints" / f"iter_{stopped['iteration']:07d}"
    assert (last_checkpoint / "manifest.json").is_file()
    # there is no time to gather the optimizer's state
    assert (last_checkpoint / optimizer_buckets.NAME).is_file()
    assert f"({number.name}), checkpoint written: {last_checkpoint}; to resume: " in written
    assert log(output, "train")[-1]["step"] == stopped["iteration"]
    slow = [record for event in log(output, "slow_ranks") for record in event["ranks"]]
    assert slow and all(
        record["rank"] in (0, 1) and record["seconds"] >= record["median"] > 0 for record in slow
    )


@pytest.mark.multiprocess
def test_an_interrupted_validation_is_repeated(
    pretrain_forked, start_forked, tmp_path, checkpoint, data
):
    many = tmp_path / "many"
    many.mkdir()
    documents = [numpy.arange(start, start + 33) % 300 for start in range(1200)]
    prefix = write(many / "validation_text_document", documents)
    options = [
        f"data.validation=[{prefix}]",
        "training.eval_iters=150",
        "training.save_interval=100",
    ]
    undisturbed = pretrain_forked(2, *options)
    output = tmp_path / "out"
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    run = start_forked(2, tmp_path / "r.yaml", *options)
    deadline = time.monotonic() + 300
    while not ((output / "log.jsonl").exists() and len(log(output, "train")) == 2):
        assert time.monotonic() < deadline, run.written.read_text()
        time.sleep(0.001)
    os.kill(run.pids[1], signal.SIGTERM)
    codes, written = run.wait()
    assert codes == [75, 75], written[-3000:]
    assert json.loads((output / "stopped.json").read_text())["iteration"] == 2
    assert [record["step"] for record in log(output, "validation")] == [0]
    codes, written = start_forked(2, tmp_path / "r.yaml", *options).wait()
    assert codes == [0, 0], written[-3000:]
    assert log(output, "validation") == log(undisturbed, "validation")
    assert_same_losses(output, undisturbed)


@pytest.mark.multiprocess
def test_a_stop_in_the_first_validation_leaves_nothing(start_forked, tmp_path, checkpoint, data):
    prefix = write(tmp_path / "validation_text_document", [list(range(33))] * 40000)
    output = tmp_path / "out"
    (tmp_path / "r.yaml").write_text(RECIPE.format(output=output, checkpoint=checkpoint, data=data))
    run = start_forked(
        1, tmp_path / "r.yaml", f"data.validation=[{prefix}]", "training.eval_iters=5000"
    )
    deadline = time.monotonic() + 300
    while "each read once" not in run.written.read_text():
        assert time.monotonic() < deadline, run.written.read_text()
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(run.pids[0], signal.SIGINT)
    codes, written = run.wait()
    assert codes == [75], written[-3000:]
    assert (
        "stopped before the first step (SIGINT), with nothing to save yet; to resume: " in written
    )
    assert not log(output, "train") and not list((output / "checkpoints").glob("iter_*"))


@pytest.mark.multiprocess
def test_a_second_start_names_the_running_process(start, tmp_path):
    run, output = start()
    second = command(
        "-m", "megatron_ext.pretrain", "--nproc-per-node", 2, tmp_path / "r.yaml", *LONG
    )
    done = subprocess.run(
        second, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert (
        lines[-1].startswith(f"error: {output} is being written by ")
        and f"(process {run.pids[0]} on " in lines[-1]
    ), done.stderr
    assert (
        len([line for line in lines if "is being written by" in line]) == 1
        and "Traceback" not in done.stderr
    )
    since = log(output, "train")[-1]["step"]
    deadline = time.monotonic() + 300
    while log(output, "train")[-1]["step"] == since:  # the first goes on
        assert time.monotonic() < deadline, run.written.read_text()
    os.kill(run.pids[0], signal.SIGTERM)
    assert run.wait()[0] == [75, 75]


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_others_ends_at_a_signal(
    start_forked, tmp_path, checkpoint, data, number
):
    (tmp_path / "r.yaml").write_text(
        RECIPE.format(output=tmp_path / "out", checkpoint=checkpoint, data=data)
    )
    run = start_forked(
        1, tmp_path / "r.yaml", "resilience.distributed_timeout_minutes=2", missing=1
    )
    waiting = psutil.Process(run.pids[0])
    deadline = time.monotonic() + 300
    while not any(
        connection.status == psutil.CONN_LISTEN for connection in waiting.net_connections()
    ):
        assert time.monotonic() < deadline, run.written.read_text()
        time.sleep(0.01)
    waiting.send_signal(number)
    assert run.wait()[0] == [-number]
    assert not (tmp_path / "out").exists()


@pytest.mark.multiprocess
def test_a_time_limit(pretrain_forked, tmp_path):
    codes, written = pretrain_forked(
        1, *LONG, "resilience.exit_duration_in_mins=0.0001", output=tmp_path / "out", check=False
    )
    assert codes == [75], written[-3000:]
    assert "stopped after step 1 (time limit), checkpoint written" in written


@pytest.mark.multiprocess
def test_a_process_that_hangs_is_named(start):
    run, output = start("resilience.distributed_timeout_minutes=0.15")
    os.kill(run.pids[1], signal.SIGSTOP)
    deadline = time.monotonic() + 300
    while "the run waits for" not in run.written.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(run.pids[1], signal.SIGKILL)
    codes, written = run.wait()
    assert codes == [1, -signal.SIGKILL]
    assert f"the run waits for rank 1 on {os.uname().nodename} (process {run.pids[1]})" in written
    assert re.search(r"rank 0 waits in gloo:\w+ \(call \d+ of .*, which rank 1 has not", written)
    (evidence,) = (output / "hangs").iterdir()
    assert (evidence / "rank_00000.stacks.txt").read_text()
    found = goodput(output)
    assert [start.cause for start in found.starts] == ["watchdog time-out"]
    assert found.parts["training"] < 0.5 and found.parts["lost"] > 60 * 0.15 - 1


@pytest.mark.multiprocess
def test_a_process_that_hangs_in_python_is_named_with_the_collective(start):
    run, output = start(
        "resilience.distributed_timeout_minutes=0.05",
        "parallel.tensor_model_parallel_size=2",
        fault="hang",
    )
    codes, written = run.wait()
    assert 1 in codes, written[-3000:]
    (evidence,) = (output / "hangs").iterdir()
    assert re.search(
        rf"the run waits for rank 1 on \S+ \(process {run.pids[1]}\), last in 'forward and"
        r" backward' of step 2; rank 0 waits in gloo:\w+ \(call \d+ of process group"
        r" TENSOR_MODEL_PARALLEL_GROUP, ranks 0, 1\), which rank 1 has not called; stacks and last"
        rf" collectives: {evidence}",
        written,
    ), written[-3000:]
    assert "in sleep_forever" in (evidence / "rank_00001.stacks.txt").read_text()
    assert "in all_reduce" in (evidence / "rank_00000.stacks.txt").read_text()
    assert (evidence / "flight_recorder_rank_1").stat().st_size


@pytest.mark.multiprocess
def test_a_killed_process_is_named(start):
    run, output = start()
    os.kill(run.pids[1], signal.SIGKILL)
    codes, written = run.wait()
    assert codes == [1, -signal.SIGKILL], written[-3000:]
    assert (
        f"error: rank 1 (process {run.pids[1]}) of the run has ended (" in written
        and "most likely for lack of memory" in written
    )
    assert "Traceback" not in written
    found = goodput(output)
    assert [start.cause for start in found.starts] == ["crash"]
    assert f"rank 1 (process {run.pids[1]}) of the run has ended" in found.starts[0].detail
    assert found.lost_steps == log(output, "train")[-1]["step"]  # there is no checkpoint


@pytest.mark.multiprocess
def test_a_killed_data_loader_is_reported(start):
    run, _ = start("data.num_workers=1")
    psutil.Process(run.pids[0]).children()[0].kill()
    codes, written = run.wait()
    assert codes[0] == 1, written[-3000:]
    message = (
        r"error: a process of the run or of its data loader has ended \((DataLoader"
        r" worker|\[Errno \d+\] Connection reset)"
    )
    assert re.search(message, written) and "lack of memory" in written, written[-3000:]
