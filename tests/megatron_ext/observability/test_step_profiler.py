import pytest
import torch

from megatron_ext.config.run_sections import Profile
from megatron_ext.hardware.cpu_platform import HostEvent
from megatron_ext.observability.step_profiler import StepProfiler
from megatron_ext.observability.step_timers import StepTimers


def profile(folder, steps, first, last, rank=0, ranks=(0,)):
    """Profile a start of the steps `first` to `last`; return the names of its traces."""
    timers = StepTimers(HostEvent)
    options = Profile(steps=steps, ranks=list(ranks))
    with StepProfiler(options, folder, rank, timers) as profiler:
        for step in range(first, last + 1):
            profiler.before_step(step)
            with timers.phase("forward_backward"):
                torch.ones(64, 64) @ torch.ones(64, 64)
            profiler.after_step()
    assert timers.annotate is None
    return {path.name.removesuffix(".trace.json.gz") for path in folder.glob("*.gz")}


@pytest.mark.parametrize(
    ("steps", "first", "last", "expected"),
    [
        ((3, 4), 1, 6, "3-4"),
        ((3, 4), 4, 6, "4-4"),  # resumed
        ((3, 4), 2, 3, "3-3"),  # stopped
        ((3, 4), 1, 2, None),  # stopped in the warm-up
        ((3, 4), 5, 6, None),
        ((1, 1), 1, 3, "1-1"),
    ],
)
def test_steps_of_a_start(tmp_path, capfd, steps, first, last, expected):
    names = set() if expected is None else {f"rank_00000_steps_{expected}"}
    assert profile(tmp_path, steps, first, last) == names
    assert "disableProfiler" not in capfd.readouterr().err


def test_ranks(tmp_path):
    assert profile(tmp_path, (1, 1), 1, 1, rank=1) == set()
    assert profile(tmp_path, (1, 1), 1, 1, rank=1, ranks=[]) == {"rank_00001_steps_1-1"}


def test_the_slowest_operations_are_no_phases(tmp_path):
    timers = StepTimers(HostEvent)
    with pytest.raises(ValueError), StepProfiler(Profile(steps=(1, 9)), tmp_path, 0, timers) as run:
        run.before_step(1)
        with timers.phase("forward_backward"):
            torch.ones(64, 64) @ torch.ones(64, 64)
        raise ValueError
    names = [entry["operation"] for entry in run.slowest]
    assert "aten::mm" in names and "forward_backward" not in names
    assert sum(entry["fraction"] for entry in run.slowest) == pytest.approx(1)
    assert "forward_backward" in (tmp_path / "rank_00000_steps_1-1.txt").read_text()
