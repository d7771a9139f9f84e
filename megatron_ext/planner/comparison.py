"""A run's plan beside what its log says."""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from galen.errors import UsageError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe, from_run
from megatron_ext.observability import expert_load, run_state
from megatron_ext.observability.goodput import Start
from megatron_ext.observability.run_state import RECENT, RunState
from megatron_ext.planner import experts
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.layout_search import Estimate, estimate

_COMPARED = {
    "data": ("seq_length",),
    "moe": ("moe_expert_capacity_factor", "moe_pad_expert_input_to_capacity"),
    "parallel": None,
    "training": (
        "global_batch_size",
        "micro_batch_size",
        "precision",
        "fp8_format",
        "fp8_recipe",
        "fp8_param_gather",
        "recompute_granularity",
        "recompute_method",
        "recompute_modules",
        "recompute_num_layers",
    ),
}
"""Keys by section whose values decide about speed and memory; None for all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """Speed, memory and goodput of a run by its folder; None where the log does not say."""

    gpus: int
    gpu_name: str
    steps: int
    """Number of logged steps in the medians."""
    step_seconds: float
    tokens_per_second_per_gpu: float
    mfu: float | None
    peak_memory: float | None
    """Bytes that PyTorch allocated on the GPU of rank 0."""
    stall_seconds: float | None
    """Mean time that training stood still for a save."""
    mtbf_hours: float | None
    """Mean time between failures; None until there are three."""
    goodput: float | None
    """Fraction of the allocated time."""
    expert_imbalance: float | None
    """Tokens of the fullest GPU's experts, relative to the mean; None without expert parallelism.

    Mean over the layers, over the steps of the newest log line.
    """


def measured(folder: Path, planned: Recipe) -> MeasuredRun:
    """Return the figures of the run in `folder`.

    Args:
        folder: run folder.
        planned: recipe of the plan, which must be the run's in what decides about speed.

    Raises:
        UsageError: the recipes differ, the run has logged no steps, or ran on no supported GPU.
    """
    state = run_state.read(folder)
    _check_same(planned, from_run(folder / "recipe.yaml"), folder)
    start = _last_start(state, folder)
    gpus = start.ranks or 0
    batch = planned.training.global_batch_size
    # a batch size ramp-up has smaller steps
    full = [record for record in state.train if record.get("global_batch_size", batch) == batch]
    if not full:
        raise UsageError(f"--compare {folder}: the batch size is still ramping up")
    recent = full[-RECENT:]
    tokens = batch * planned.data.seq_length
    rate = statistics.median(record["tokens_per_second"] for record in recent)
    padding = statistics.median(record.get("padding_fraction", 0.0) for record in recent)
    assert state.goodput is not None  # there is a start
    interval = state.goodput.save_interval
    has_failed = interval is not None and not interval.is_lower_bound
    return MeasuredRun(
        gpus=gpus,
        gpu_name=_gpu_name(start, folder),
        steps=len(recent),
        # the log's rate leaves out padding
        step_seconds=tokens * (1 - padding) / rate,
        tokens_per_second_per_gpu=rate / (1 - padding) / gpus,
        mfu=None if state.mfu is None else state.mfu / (1 - padding),
        peak_memory=recent[-1].get("peak_memory"),
        stall_seconds=sum(state.goodput.stall_phases.values()) or None,
        mtbf_hours=interval.mtbf_seconds / 3600 if interval and has_failed else None,
        goodput=state.goodput.fraction_of_allocated,
        expert_imbalance=_expert_imbalance(folder, planned.parallel.expert_model_parallel_size),
    )


def _expert_imbalance(folder: Path, ranks: int) -> float | None:
    """Return the mean over the layers of the fullest rank's tokens, relative to the mean."""
    stored = expert_load.read(folder)
    if stored is None or ranks == 1:
        return None
    fullest = []
    for layer in stored.load:
        local = len(layer) // ranks
        sums = [sum(layer[first : first + local]) for first in range(0, len(layer), local)]
        fullest.append(max(sums) / local)
    return statistics.mean(fullest)


def _last_start(state: RunState, folder: Path) -> Start:
    starts = [] if state.goodput is None else state.goodput.starts
    ready = [start for start in starts if start.resumed_from is not None and start.ranks]
    if not state.train or not ready:
        raise UsageError(f"--compare {folder}: the run has logged no steps yet")
    return ready[-1]


def expectation(run: Recipe, architecture: Architecture, gpus: int, device_name: str) -> str | None:
    """Return the plan of a run in one line, None for devices that the plan does not know."""
    names = [name for name, spec in GPUS.items() if spec.device_name == device_name]
    if not names:
        return None
    try:
        one = estimate(architecture, run, gpus, GPUS[names[0]])
    except UsageError:  # training refuses it, too, and says why
        return None
    return (
        f"planned: {one.step.total:.2f} s a step, {one.tokens_per_second_per_gpu:,.0f}"
        f" tokens/s/GPU, {one.memory / 2**30:.1f} GiB, checkpoint stall"
        f" {one.cost.stall_seconds:.1f} s"
    )


def _gpu_name(start: Start, folder: Path) -> str:
    for name, spec in GPUS.items():
        if spec.device_name == start.device:
            return name
    raise UsageError(
        f"--compare {folder}: the run's device is {start.device or 'unknown'}; the plan predicts"
        f" speed on {', '.join(spec.device_name for spec in GPUS.values())}, not on CPUs"
    )


def _check_same(planned: Recipe, actual: Recipe, folder: Path) -> None:
    for section, names in _COMPARED.items():
        expected = dataclasses.asdict(getattr(planned, section))
        values = dataclasses.asdict(getattr(actual, section))
        for name in names or values:
            if values[name] != expected[name]:
                raise UsageError(
                    f"--compare {folder}: {section}.{name} is {values[name]} in the run and"
                    f" {expected[name]} in the plan; plan {folder / 'recipe.yaml'}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure of a plan and of its run."""

    figure: str
    planned: float
    measured: float | None

    @property
    def error(self) -> float | None:
        """Relative error of the plan."""
        return self.planned / self.measured - 1 if self.measured else None


def compare(one: Estimate, run: MeasuredRun) -> list[Comparison]:
    """Return the figures of a plan beside those of its run."""
    # the first stage is rank 0's; PyTorch counts neither CUDA nor NCCL
    values: list[tuple[str, float, float | None]] = [
        ("step_seconds", one.step.total, run.step_seconds),
        (
            "tokens_per_second_per_gpu",
            one.tokens_per_second_per_gpu,
            run.tokens_per_second_per_gpu,
        ),
        ("mfu", one.mfu, run.mfu),
        ("peak_memory", one.stages[0].total, run.peak_memory),
        ("checkpoint_stall", one.cost.stall_seconds, run.stall_seconds),
        ("mtbf_hours", one.cost.mtbf_hours, run.mtbf_hours),
        ("goodput", one.cost.goodput, run.goodput),
    ]
    if run.expert_imbalance is not None:
        margin = experts.imbalance(one.recipe)
        values.append(("expert_imbalance", margin, run.expert_imbalance))
    return [
        Comparison(figure=figure, planned=planned, measured=actual)
        for figure, planned, actual in values
    ]


@dataclasses.dataclass(frozen=True)
class _Figure:
    """How a figure is displayed."""

    title: str
    format: Callable[[float], str]


_FIGURES = {
    "step_seconds": _Figure("step, s", "{:,.2f}".format),
    "tokens_per_second_per_gpu": _Figure("tokens/s/GPU", "{:,.0f}".format),
    "mfu": _Figure("MFU", "{:.1%}".format),
    "peak_memory": _Figure("peak memory of rank 0, GiB", lambda size: f"{size / 2**30:.1f}"),
    "checkpoint_stall": _Figure("checkpoint stall, s", "{:.1f}".format),
    "mtbf_hours": _Figure("mean time between failures, h", "{:,.0f}".format),
    "goodput": _Figure("goodput", "{:.1%}".format),
    "expert_imbalance": _Figure("tokens of the fullest GPU's experts / mean", "{:.2f}".format),
}


def rows(comparisons: list[Comparison]) -> list[list[str]]:
    """Return the comparisons as displayed: figure, planned, measured, error of the plan."""
    lines = []
    for one in comparisons:
        shown = _FIGURES[one.figure]
        actual = "-" if one.measured is None else shown.format(one.measured)
        error = "-" if one.error is None else f"{one.error:+.1%}"
        lines.append([shown.title, shown.format(one.planned), actual, error])
    return lines


def to_dict(comparisons: list[Comparison]) -> dict[str, Any]:
    """Return the comparisons as JSON types, sizes in bytes."""
    return {
        one.figure: {"planned": one.planned, "measured": one.measured, "error": one.error}
        for one in comparisons
    }
