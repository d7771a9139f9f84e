"""The log line of a training step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware.platforms import Platform
from megatron_ext.observability import expert_load
from megatron_ext.observability.metrics_logger import RunLog
from megatron_ext.observability.step_timers import StepTimers
from megatron_ext.training.expert_statistics import take_statistics
from megatron_ext.training.train_step import StepResult
from megatron_ext.training.training_state import Progress


class StepLogger:
    """Logs the figures of the steps that are due, on rank 0. All its methods are collective.

    Args:
        log: rank 0's log, None on the others.
        recipe: the run's configuration.
        architecture: the model's configuration.
        platform: of this process.
        timers: of the phases of a step.
        model: this process's model chunks.
    """

    def __init__(
        self,
        log: RunLog | None,
        recipe: Recipe,
        architecture: Architecture,
        platform: Platform,
        timers: StepTimers,
        model: Sequence[DistributedDataParallel],
    ) -> None:
        self._log = log
        self._recipe = recipe
        self._architecture = architecture
        self._platform = platform
        self._timers = timers
        self._model = model

    def log(
        self,
        progress: Progress,
        result: StepResult,
        lr: float,
        grad_norm: float,
        batch_size: int,
        seconds: float,
    ) -> None:
        """Log a step if it is due.

        Args:
            progress: after the step.
            result: of the step.
            lr: learning rate.
            grad_norm: before clipping.
            batch_size: sequences of the global batch.
            seconds: of the step.
        """
        if progress.iteration % self._recipe.training.log_interval:
            return
        experts = self._experts(progress.iteration)
        if self._log is None:
            return
        tokens = batch_size * self._recipe.data.seq_length
        rate = (tokens - result.padding) / seconds
        padding = {}
        if self._recipe.pads_sequences:
            padding["padding_fraction"] = result.padding / tokens
        self._log.train(
            {
                "step": progress.iteration,
                "loss": result.loss,
                "lr": lr,
                "grad_norm": grad_norm,
                "global_batch_size": batch_size,
                "consumed_samples": progress.consumed_samples,
                "tokens": progress.consumed_tokens,
                "tokens_per_second": rate,
                **padding,
                **experts,
                "mfu": self._mfu(rate, result.context_length),
                **self._platform.memory_figures,
                "timers": self._timers.take(),
                "skipped_steps": progress.skipped_steps,
                "elapsed": progress.seconds,
            }
        )

    def _experts(self, step: int) -> dict[str, Any]:
        """Return the figures of the experts since the last log line; write their load to a file.

        Empty for a dense model.
        """
        if not self._architecture.is_moe:
            return {}
        statistics = take_statistics(self._model, self._architecture, self._platform.device)
        if self._log is not None:
            expert_load.write(Path(self._recipe.output), step, statistics.load)
        return statistics.figures()

    def _mfu(self, tokens_per_second: float, context_length: float) -> float | None:
        """Return the model FLOPs utilization; None where the devices' bf16 peak is unknown."""
        if self._platform.peak_flops is None:
            return None
        flops = tokens_per_second * self._architecture.flops_per_token(context_length)
        return flops / (self._platform.peak_flops * torch.distributed.get_world_size())
