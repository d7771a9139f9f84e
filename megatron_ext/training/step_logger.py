"""The log line of a training step."""

import torch

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware.platforms import Platform
from megatron_ext.observability.metrics_logger import RunLog
from megatron_ext.observability.step_timers import StepTimers
from megatron_ext.training.train_step import StepResult
from megatron_ext.training.training_state import Progress


class StepLogger:
    """Logs the figures of the steps that are due, on rank 0.

    Args:
        log: rank 0's log, None on the others.
        recipe: the run's configuration.
        architecture: the model's configuration.
        platform: of this process.
        timers: of the phases of a step.
    """

    def __init__(
        self,
        log: RunLog | None,
        recipe: Recipe,
        architecture: Architecture,
        platform: Platform,
        timers: StepTimers,
    ) -> None:
        self._log = log
        self._recipe = recipe
        self._architecture = architecture
        self._platform = platform
        self._timers = timers

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
        if self._log is None or progress.iteration % self._recipe.training.log_interval:
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
                "mfu": self._mfu(rate, result.context_length),
                **self._platform.memory_figures,
                "timers": self._timers.take(),
                "skipped_steps": progress.skipped_steps,
                "elapsed": progress.seconds,
            }
        )

    def _mfu(self, tokens_per_second: float, context_length: float) -> float | None:
        """Return the model FLOPs utilization; None where the devices' bf16 peak is unknown."""
        if self._platform.peak_flops is None:
            return None
        flops = tokens_per_second * self._architecture.flops_per_token(context_length)
        return flops / (self._platform.peak_flops * torch.distributed.get_world_size())
