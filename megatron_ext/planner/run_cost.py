"""Time and GPU-hours of a run to its end: validations, checkpoints, failures. No torch here.

The rates of a save are those of docs/pretraining/checkpoints.md, "Measurements": measured on a CPU
machine or assumed, as stated at each.
"""

import dataclasses
import math

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.observability import save_interval
from megatron_ext.planner import model_state

FAILURES_PER_GPU_DAY = 419 / (16384 * 54)
"""Unexpected interruptions of Llama 3's pretraining: 419 in 54 days on 16,384 H100.

Llama Team 2024, "The Llama 3 Herd of Models", arXiv 2407.21783, section 3.3.4.
"""
RESTART_SECONDS = 600.0
"""From a failure to the first step of the next start, assumed: notice, node check, start, load."""
_SAVE_SECONDS = 1.06
"""Phases gather, plan, fork and publish of a save of little data, measured."""
_COPY_RATE = 20e9
"""Bytes/s from each GPU to host memory, assumed."""
_FORK_RATE = 8e9
"""Bytes/s of a process's memory when it forks, measured."""
_HASH_RATE = 0.7e9
"""Bytes/s in which a process hashes what it has written, measured; the storage is not slower."""
_GATHER_RATE = 1e9
"""Bytes/s in which a process gathers a fully_reshardable state in host memory, assumed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a run takes from its first to its last step; fractions are of all its time."""

    mtbf_hours: float
    """Mean time between failures of the run."""
    stall_seconds: float
    """Time that training stands still for a periodic save."""
    stall_fraction: float
    validation_fraction: float
    failure_fraction: float
    """Steps done again after failures, and restarts."""
    save_interval: int
    """`training.save_interval` with the least time, in steps (Daly)."""
    days: float
    gpu_hours: float

    @property
    def goodput(self) -> float:
        """Fraction of the time spent on steps that count."""
        return 1 - self.stall_fraction - self.validation_fraction - self.failure_fraction


def run_cost(
    architecture: Architecture,
    recipe: Recipe,
    gpus: int,
    step_seconds: float,
    mtbf_hours: float | None = None,
) -> RunCost:
    """Return the cost of a run whose steps take `step_seconds`.

    Args:
        architecture: the model.
        recipe: the run.
        gpus: number of GPUs.
        step_seconds: time of a training step.
        mtbf_hours: mean time between failures of the run; None for Llama 3's rate.
    """
    training = recipe.training
    hours = default_mtbf_hours(gpus) if mtbf_hours is None else mtbf_hours
    mtbf = 3600 * hours
    stall = checkpoint_stall(architecture, recipe, gpus)
    validation = _validation_seconds(recipe, step_seconds)
    # a step with its part of the validations
    step = step_seconds + validation / training.train_iters
    interval = training.save_interval * step
    useful = 1 - save_interval.overhead(interval, stall, mtbf, RESTART_SECONDS)
    seconds = math.inf if useful <= 0 else training.train_iters * step / useful
    stall_fraction = useful * stall / interval
    return RunCost(
        mtbf_hours=hours,
        stall_seconds=stall,
        stall_fraction=stall_fraction,
        validation_fraction=useful * (1 - step_seconds / step),
        failure_fraction=1 - useful - stall_fraction,
        save_interval=max(1, round(save_interval.optimum(stall, mtbf) / step)),
        days=seconds / 86400,
        gpu_hours=gpus * seconds / 3600,
    )


def default_mtbf_hours(gpus: int) -> float:
    """Return the mean time between failures of a run on `gpus` GPUs at Llama 3's rate."""
    return 24 / (FAILURES_PER_GPU_DAY * gpus)


def checkpoint_stall(architecture: Architecture, recipe: Recipe, gpus: int) -> float:
    """Return the seconds that training stands still for a periodic save."""
    training = recipe.training
    own_bytes = model_state.checkpoint_bytes(architecture, recipe) / gpus
    seconds = _SAVE_SECONDS + own_bytes / _COPY_RATE + own_bytes / _FORK_RATE
    if training.dist_ckpt_optim_fully_reshardable == "always":
        stages = range(recipe.parallel.pipeline_model_parallel_size)
        parameters = max(
            model_state.stage_parameters(architecture, recipe, stage) for stage in stages
        )
        seconds += model_state.OPTIMIZER_STATE * parameters / _GATHER_RATE
    if not training.async_save:
        seconds += own_bytes / _HASH_RATE
    return seconds


def _validation_seconds(recipe: Recipe, step_seconds: float) -> float:
    """Return the seconds of all validations of a run: forward passes, a third of a step each."""
    training = recipe.training
    sources = [source for source in recipe.data.sources.values() if source.validation]
    validations = training.train_iters // training.eval_interval + 1
    batches = validations * training.eval_iters * max(len(sources), 1)
    return batches * step_seconds / 3
