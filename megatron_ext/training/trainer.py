"""The training loop: optimizer steps, validation, checkpoints, and handling of failed steps."""

import dataclasses
import gc
import math
import time
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state

from galen.errors import DataError
from galen.stop_signals import NAMES
from megatron_ext.checkpoint import integrity
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.recipe import Recipe
from megatron_ext.data import batches
from megatron_ext.data.passes import ReadOnce
from megatron_ext.data.tokenized import Datasets
from megatron_ext.hardware.platforms import Platform
from megatron_ext.observability.metrics_logger import RunLog
from megatron_ext.resilience.signals import StopRequests
from megatron_ext.resilience.watchdog import Watchdog
from megatron_ext.training import state as training_state
from megatron_ext.training.checkpoint_writer import CheckpointWriter
from megatron_ext.training.loss_spike import LossGuard
from megatron_ext.training.state import Progress, Run
from megatron_ext.training.stragglers import StragglerReport
from megatron_ext.training.train_step import Batches, GlobalBatch, Outcome, samples_not_finite


class Trainer:
    """A run between two restarts. All its methods are collective.

    Args:
        platform: what the process runs on.
        recipe: the run's configuration.
        architecture: the model's shape.
        run: this process's model, optimizer and schedule, restored to `progress`.
        progress: how far the run is.
        data: what is read.
        stop: reasons to stop early.
        log: rank 0's log, None on the others.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        recipe: Recipe,
        architecture: Architecture,
        run: Run,
        progress: Progress,
        data: Datasets,
        stop: StopRequests,
        log: RunLog | None,
    ) -> None:
        self.platform, self.recipe, self.architecture, self.state = (
            platform,
            recipe,
            architecture,
            run,
        )
        self.progress, self.data, self.stop, self.log = progress, data, stop, log
        self.rank, self.checkpoints = (
            torch.distributed.get_rank(),
            Path(recipe.output) / "checkpoints",
        )
        self.writer = CheckpointWriter(self.checkpoints, architecture, recipe.training)
        self.schedule = BatchSchedule(recipe.training)
        self.batch = GlobalBatch(platform, recipe, run.model)
        limit = 60 * recipe.resilience.distributed_timeout_minutes
        self.watchdog = Watchdog(
            Path(recipe.output), self.rank, torch.distributed.get_world_size(), limit
        )
        self.stragglers = StragglerReport(recipe.resilience.straggler_ratio)
        self.reason: str | None = None
        """Why to stop early."""
        self.broken_off = False
        """Whether a request to stop came before a validation was done."""
        self._start_from(progress)

    def _start_from(self, progress: Progress) -> None:
        resilience = self.recipe.resilience
        self.progress = progress
        self.guard = LossGuard(
            resilience.loss_spike_threshold, resilience.loss_spike_window, progress.recent_losses
        )
        self.batches = self._batches(
            self.data.train, progress.position, self.recipe.data.num_workers
        )

    def run(self) -> str | None:
        """Train to the recipe's last step, with validations and checkpoints on the way.

        Returns:
            Why the run stopped early, its checkpoint written; None when it is finished.

        Raises:
            DataError: too many steps went wrong.
        """
        options = self.recipe.training
        if options.manual_gc_interval:
            gc.disable()  # a collection on one process would make all others wait
        if self._validation_is_missing():
            self._validate()
        if self.progress.iteration == 0 and not self.broken_off:
            self.reason = None  # a first step, so that there is something to keep
        while self.progress.iteration < options.train_iters and self.reason is None:
            self.reason = self.stop.reason(self._step())
            step, last = self.progress.iteration, self.progress.iteration == options.train_iters
            if last or step % options.eval_interval == 0:
                self._validate()
            if last or self.reason or step % options.save_interval == 0:
                self.save()
            self._look_around(step)
        self.watchdog.enter(self.progress.iteration, "checkpoint")
        self.writer.finish(wait=True)
        self.watchdog.close()
        return (
            self.reason
            if self.progress.iteration < options.train_iters or self.broken_off
            else None
        )

    def save(self) -> None:
        """Write a checkpoint of the present state."""
        self.watchdog.enter(self.progress.iteration, "checkpoint")
        self.progress.recent_losses = self.guard.recent
        self.writer.save(self.progress, self.state)

    def _step(self) -> list[float]:
        """Take one step, or find that it must be skipped.

        Returns the sums of the processes' requests to stop.
        """
        progress, start = self.progress, time.monotonic()
        self.watchdog.enter(progress.iteration, "forward and backward")
        for piece in self.state.model:
            piece.train()
            piece.zero_grad_buffer()
        optimizer = self.state.optimizer
        optimizer.zero_grad()
        size = self.schedule.size(progress.consumed_samples)
        outcome = self.batch.run(
            self.batches, self._micro_batches(size), self.stop.flags(look_at_file=self.rank == 0)
        )
        self.watchdog.enter(progress.iteration, "optimizer step")
        optimizer.prepare_grads()
        norm = float(optimizer.get_grad_norm())
        if (median := self.guard.spike(outcome.loss)) is not None and self._go_back(
            outcome, size, median
        ):
            return outcome.flags
        # before the step: the first has a rate above 0, the last min_lr
        self.state.scheduler.step(size)
        if math.isfinite(outcome.loss) and math.isfinite(norm) and median is None:
            optimizer.step()
            self.guard.accept(outcome.loss)
        else:
            self._leave_out(outcome, norm, size, median)
        seconds = time.monotonic() - start
        progress.iteration += 1
        progress.consumed_samples += size
        progress.consumed_tokens += outcome.tokens
        progress.seconds += seconds
        self._log_step(outcome, norm, size, seconds)
        return outcome.flags

    def _leave_out(self, outcome: Outcome, norm: float, size: int, median: float | None) -> None:
        """Count a step whose update would have done harm, and say which samples caused it."""
        first = self.progress.position
        culprits = samples_not_finite(outcome, first, self.recipe.training.micro_batch_size)
        what = "spike of the loss"
        if not math.isfinite(outcome.loss):
            what = "loss"
        elif not math.isfinite(norm):
            what = "gradient"
        record = {"reason": what, "first_sample": first, "samples": size, "not_finite": culprits}
        self._count_skipped(
            1,
            f"{what} of step {self.progress.iteration + 1} (samples"
            f" {culprits or f'{first} to {first + size - 1}'})",
        )
        if self.log:
            self.log.event("skipped", self.progress.iteration + 1, record)

    def _go_back(self, outcome: Outcome, size: int, median: float) -> bool:
        """Return to the last checkpoint and skip the data from there to here.

        Returns False when there is no checkpoint yet.
        """
        self.watchdog.enter(self.progress.iteration, "checkpoint")
        before, end = self.progress, self.progress.position + size
        self.writer.finish(wait=True)
        folder, _ = integrity.newest_whole(self.checkpoints)
        if folder is None:
            return False
        progress = training_state.load(folder, self.state)
        window = {
            "loss": outcome.loss,
            "median": median,
            "from_step": before.iteration + 1,
            "to_step": progress.iteration,
        }
        window |= {"first_sample": progress.position, "samples": end - progress.position}
        undone = before.iteration + 1 - progress.iteration
        skipped = before.skipped_steps
        progress.skipped_samples = end - progress.consumed_samples
        self._start_from(
            dataclasses.replace(progress, skipped_steps=skipped, seconds=before.seconds)
        )
        if self.log:
            self.log.rewind(progress.iteration)
            self.log.event("rolled_back", progress.iteration, window)
        self._count_skipped(
            undone,
            f"spike of the loss at step {window['from_step']}: {outcome.loss:.3f}, median"
            f" {median:.3f}",
        )
        return True

    def _count_skipped(self, steps: int, last: str) -> None:
        self.progress.skipped_steps += steps
        allowed = self.recipe.resilience.max_skipped_steps
        if self.progress.skipped_steps > allowed:
            self.watchdog.close()
            raise DataError(
                f"{self.progress.skipped_steps} steps were left out, more than"
                f" resilience.max_skipped_steps = {allowed}; the last: {last}. If log.jsonl names"
                " the same samples again and again, look at them; if the gradient's norm grew"
                " before, lower optimizer.lr or lengthen the warm-up; if one rank or node stands"
                " out, check its hardware"
            )

    def _log_step(self, outcome: Outcome, norm: float, size: int, seconds: float) -> None:
        progress = self.progress
        if not self.log or progress.iteration % self.recipe.training.log_interval:
            return
        rate = size * self.recipe.data.seq_length / seconds
        self.log.train(
            {
                "step": progress.iteration,
                "loss": outcome.loss,
                "lr": self.state.optimizer.param_groups[0]["lr"],
                "grad_norm": norm,
                "global_batch_size": size,
                "consumed_samples": progress.consumed_samples,
                "tokens": progress.consumed_tokens,
                "tokens_per_second": rate,
                "mfu": self._mfu(rate),
                "skipped_steps": progress.skipped_steps,
                "elapsed": progress.seconds,
            }
        )

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Return the model FLOPs utilization, by the devices' peak bf16 rate where it is known."""
        if self.platform.peak_flops is None:
            return None
        needed = tokens_per_second * self.architecture.flops_per_token(self.recipe.data.seq_length)
        return needed / (self.platform.peak_flops * torch.distributed.get_world_size())

    def _look_around(self, step: int) -> None:
        """Collect garbage and compare the processes' speed at their intervals.

        Also check whether a checkpoint has been written.
        """
        self.writer.finish(wait=False)
        options, every = self.recipe.training, self.recipe.resilience.straggler_interval
        if options.manual_gc_interval and step % options.manual_gc_interval == 0:
            gc.collect()
        if every and step % every == 0:
            slow = self.stragglers.slow(self.batch.seconds / every, self.platform.device)
            self.batch.seconds = 0.0
            if slow and self.log:
                self.log.event("slow_ranks", step, {"ranks": slow})

    def _validation_is_missing(self) -> bool:
        """Return whether the validation of this step is due and not yet made.

        So it is before the first step, or if a request to stop interrupted it.
        """
        step, options = self.progress.iteration, self.recipe.training
        due = bool(self.data.validation) and (
            step % options.eval_interval == 0 or step == options.train_iters
        )
        made = self.log is not None and any(
            one["kind"] == "validation" and one["step"] == step for one in self.log.records
        )
        missing = [due and not made]
        torch.distributed.broadcast_object_list(missing, src=0)
        return missing[0]

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the loss of each source over the same validation sequences each time.

        With a reason to stop, there before or found on the way, it is broken off and nothing is
        logged: the next start makes up for it.
        """
        if not self.data.validation:
            return
        self.broken_off = True
        for piece in self.state.model:
            piece.eval()
        losses, tokens = {}, 0
        for name, dataset in self.data.validation.items():
            if (measured := self._loss_over(dataset)) is None:
                return
            losses[name] = measured[0]
            tokens += measured[1]
        self.broken_off = False
        if self.log:
            share = sum(self.data.weights.values())
            mean = sum(losses[name] * self.data.weights[name] / share for name in losses)
            self.log.validation(
                self.progress.iteration, mean, tokens, losses if len(losses) > 1 else None
            )

    def _breaks_off(self) -> bool:
        """Return whether to break off a validation.

        Before the first step, when there is nothing to keep yet, only a signal does.
        """
        return self.reason is not None and (self.progress.iteration > 0 or self.reason in NAMES)

    def _loss_over(self, dataset: ReadOnce) -> tuple[float, int] | None:
        """Return the mean loss over a validation dataset and its number of tokens.

        None if it was stopped before its end.
        """
        together = self._samples_together()
        pieces, stages = (
            self.recipe.parallel.virtual_pipeline_model_parallel_size,
            self.recipe.parallel.pipeline_model_parallel_size,
        )
        multiple = stages if pieces else 1  # an interleaved pipeline takes so many at a time
        left = -(-len(dataset) // (together * multiple)) * multiple  # micro-batches of each replica
        source, most = (
            self._batches(dataset, 0, 0, total=left * together),
            self._micro_batches(self.recipe.training.global_batch_size),
        )
        outcomes = []
        while left:
            if self._breaks_off():
                return None
            self.watchdog.enter(self.progress.iteration, "validation")
            flags = self.stop.flags(look_at_file=self.rank == 0)
            outcomes.append(self.batch.run(source, min(most, left), flags, forward_only=True))
            left -= min(most, left)
            self.reason = self.stop.reason(outcomes[-1].flags)
        tokens = sum(outcome.tokens for outcome in outcomes)
        return sum(outcome.loss * outcome.tokens for outcome in outcomes) / tokens, tokens

    def _micro_batches(self, size: int) -> int:
        return size // self._samples_together()

    def _samples_together(self) -> int:
        """Return the samples of one micro-batch of all replicas."""
        return self.recipe.training.micro_batch_size * parallel_state.get_data_parallel_world_size()

    def _batches(self, dataset: Any, first: int, workers: int, total: int | None = None) -> Batches:
        sampler = batches.BatchSampler(
            total=len(dataset) if total is None else total,
            consumed=first,
            micro_batch_size=self.recipe.training.micro_batch_size,
            rank=parallel_state.get_data_parallel_rank(),
            ranks=parallel_state.get_data_parallel_world_size(),
        )
        return batches.loader(dataset, sampler, workers, pin_memory=self.platform.pin_memory)
