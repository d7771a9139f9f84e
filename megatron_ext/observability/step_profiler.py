"""Profiles some steps of a run: PyTorch's profiler or Nsight Systems, and the CUDA memory history.

The files are in RUN/profile/. Nothing here draws a random number or changes a result.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from megatron.core import utils as core_utils

from megatron_ext.config.run_sections import Profile
from megatron_ext.observability.step_timers import StepTimers

FOLDER = "profile"
_TABLE_ROWS = 50

logger = logging.getLogger(__name__)


class StepProfiler:
    """Profiles the steps of a recipe's `profile` section on one process.

    Args:
        options: the section, None for no profile.
        folder: of the files.
        rank: of this process.
        timers: their phases are ranges of the profile.
    """

    def __init__(
        self, options: Profile | None, folder: Path, rank: int, timers: StepTimers
    ) -> None:
        self._options = options
        if options is not None and options.ranks and rank not in options.ranks:
            self._options = None
        self._folder = folder
        self._rank = rank
        self._logs = options is None or rank == min(options.ranks, default=0)
        self._timers = timers
        self._profiler: torch.profiler.profile | None = None
        self._first: int | None = None
        self._step = 0
        self._remaining = 0
        self.slowest: list[dict[str, Any]] = []
        """The slowest operations of the profiled steps, when they are over."""

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def before_step(self, step: int) -> None:
        """Begin to profile, if step number `step` is the first profiled one of this start."""
        options = self._options
        if options is None:
            return
        first, last = options.steps
        if self._first is None and options.use_pytorch_profiler and step == first - 1:
            self._start_pytorch(options, warmup=1, active=last - first + 1)
        if self._first is None and first <= step <= last:
            self._remaining = last - step + 1
            self._start(options)
            self._first = step
        self._step = step

    def after_step(self) -> None:
        """Count a step as profiled; write the files after the last."""
        if self._options is None:
            return
        if self._first is not None:
            self._remaining -= 1
        if self._first is not None and self._remaining == 0:
            self.close()
        elif self._profiler is not None:
            self._profiler.step()

    def close(self) -> None:
        """Write the files of the steps profiled so far, and end."""
        options = self._options
        if options is None:
            return
        self._options = None
        self._timers.annotate = None
        if self._profiler is not None:
            self._profiler.stop()
        if self._first is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"rank_{self._rank:05d}_steps_{self._first}-{self._step}"
        if options.record_memory_history:
            path = self._folder / f"{name}.memory.pickle"
            torch.cuda.memory._dump_snapshot(str(path))
            torch.cuda.memory._record_memory_history(enabled=None)
        if self._profiler is None:
            core_utils.configure_nvtx_profiling(False)
            torch.cuda.check_error(torch.cuda.cudart().cudaProfilerStop())  # type: ignore[attr-defined]
        else:
            self._write(self._profiler, name)
        if self._logs:
            logger.info(f"profile of steps {self._first} to {self._step}: {self._folder}")

    def _start(self, options: Profile) -> None:
        if options.record_memory_history:
            # the C++ frames of "all" take minutes to resolve
            torch.cuda.memory._record_memory_history(max_entries=1_000_000, stacks="python")
        if options.use_pytorch_profiler:
            self._timers.annotate = torch.profiler.record_function
            if self._profiler is None:  # the first step of this start
                self._start_pytorch(options, warmup=0, active=self._remaining)
            return
        self._timers.annotate = torch.cuda.nvtx.range
        core_utils.configure_nvtx_profiling(True)
        torch.cuda.check_error(torch.cuda.cudart().cudaProfilerStart())  # type: ignore[attr-defined]

    def _start_pytorch(self, options: Profile, warmup: int, active: int) -> None:
        self._profiler = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=0, warmup=warmup, active=active, repeat=1),
            record_shapes=options.record_shapes,
            with_stack=options.with_stack,
            acc_events=True,
        )
        self._profiler.start()

    def _write(self, profiler: torch.profiler.profile, name: str) -> None:
        """Write the trace and the table of the slowest operations."""
        averages = profiler.key_averages()
        key = _sort_key(averages)
        table = averages.table(sort_by=key, row_limit=_TABLE_ROWS)
        (self._folder / f"{name}.txt").write_text(table, encoding="utf-8")
        self.slowest = slowest_operations(averages)
        partial = self._folder / f".{name}.trace.json.gz"
        profiler.export_chrome_trace(str(partial))
        partial.rename(self._folder / f"{name}.trace.json.gz")


def _sort_key(averages: Sequence[Any]) -> str:
    """Return the time by which operations are compared: the device's where there is one."""
    device = any(entry.self_device_time_total for entry in averages)
    return "self_device_time_total" if device else "self_cpu_time_total"


def slowest_operations(averages: Sequence[Any], number: int = 20) -> list[dict[str, Any]]:
    """Return the operations that take most of the time, and their fraction of that of all.

    Args:
        averages: of `torch.profiler.profile.key_averages`.
        number: how many.
    """
    key = _sort_key(averages)
    # phases contain the operations
    operations = [entry for entry in averages if not entry.is_user_annotation]
    total = sum(getattr(entry, key) for entry in operations)
    slowest = sorted(operations, key=lambda entry: -getattr(entry, key))[:number]
    return [
        {
            "operation": entry.key,
            "calls": entry.count,
            "milliseconds": getattr(entry, key) / 1000,
            "fraction": getattr(entry, key) / total if total else 0.0,
        }
        for entry in slowest
    ]
