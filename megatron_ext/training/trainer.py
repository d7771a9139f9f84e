"""The training loop: optimizer steps, validation, checkpoints, and handling of failed steps."""

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
from megatron_ext.checkpoint.optimizer_buckets import DP_RESHARDABLE, FULLY_RESHARDABLE
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.recipe import Recipe
from megatron_ext.data import batches
from megatron_ext.data.passes import ReadOnce
from megatron_ext.data.tokenized import Datasets
from megatron_ext.hardware.platforms import Platform
from megatron_ext.observability import step_profiler
from megatron_ext.observability.metrics_logger import RunLog
from megatron_ext.observability.phase_clock import PhaseClock
from megatron_ext.observability.step_profiler import StepProfiler
from megatron_ext.resilience.signals import TRIGGER_FILE, PreemptionHandler
from megatron_ext.resilience.watchdog import Watchdog
from megatron_ext.training import training_state
from megatron_ext.training.checkpoint_writer import CheckpointWriter
from megatron_ext.training.loss_spike import LossSpikeDetector
from megatron_ext.training.optimizer import prepare_grads, update
from megatron_ext.training.step_logger import StepLogger
from megatron_ext.training.stragglers import StragglerReport
from megatron_ext.training.train_step import Batches, StepResult, TrainStep, non_finite_samples
from megatron_ext.training.training_state import Progress, TrainState


class Trainer:
    """Trains from one start of a run to its end or the next stop. All its methods are collective.

    Args:
        platform: of this process.
        recipe: the run's configuration.
        architecture: the model's configuration.
        state: this process's model, optimizer and schedule, restored to `progress`.
        progress: counters at the start.
        data: training and validation datasets.
        preemption: requests to stop early.
        clock: divides the time of this process.
        log: rank 0's log, None on the others.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        recipe: Recipe,
        architecture: Architecture,
        state: TrainState,
        progress: Progress,
        data: Datasets,
        preemption: PreemptionHandler,
        clock: PhaseClock,
        log: RunLog | None,
    ) -> None:
        self.platform = platform
        self.recipe = recipe
        self.state = state
        self.data = data
        self.preemption = preemption
        self.clock = clock
        self.log = log
        self.rank = torch.distributed.get_rank()
        self.checkpoints = Path(recipe.output) / "checkpoints"
        self.writer = CheckpointWriter(
            self.checkpoints, architecture, recipe.training, log.checkpoint if log else None
        )
        self.schedule = BatchSchedule(recipe.training)
        self.train_step = TrainStep(platform, recipe, state.model)
        self.watchdog = Watchdog(
            Path(recipe.output),
            self.rank,
            torch.distributed.get_world_size(),
            limit=60 * recipe.resilience.distributed_timeout_minutes,
        )
        self.timers = self.train_step.timers
        self.step_logger = StepLogger(log, recipe, architecture, platform, self.timers, state.model)
        self.profiler = StepProfiler(
            recipe.profile, Path(recipe.output) / step_profiler.FOLDER, self.rank, self.timers
        )
        self.stragglers = StragglerReport(
            platform, recipe.resilience.straggler_interval, recipe.resilience.straggler_ratio
        )
        self.stop_reason: str | None = None
        self.validation_interrupted = False
        """Whether a request to stop came before the end of a validation."""
        self._start_from(progress)

    def _start_from(self, progress: Progress) -> None:
        resilience = self.recipe.resilience
        self.progress = progress
        self.spike_detector = LossSpikeDetector(
            resilience.loss_spike_threshold, resilience.loss_spike_window, progress.recent_losses
        )
        batches = self._batches(self.data.train, progress.next_sample, self.recipe.data.num_workers)
        self.batches = self.clock.timed(batches, "data_wait")

    def run(self) -> str | None:
        """Train to the recipe's last step, with validations and checkpoints on the way.

        Returns:
            Why the run stopped early, its checkpoint written; None when it is finished.

        Raises:
            DataError: too many steps were skipped.
        """
        options = self.recipe.training
        if options.manual_gc_interval:
            gc.disable()  # a collection on one process would make all others wait
        self.clock.enter("train")
        if self._validation_is_missing():
            self._validate()
        if self.progress.iteration == 0 and not self.validation_interrupted:
            self.stop_reason = None  # take a first step, so that there is something to save
        with self.profiler:
            while self.progress.iteration < options.train_iters and self.stop_reason is None:
                self._step_with_tasks()
        self.watchdog.enter(self.progress.iteration, "checkpoint")
        with self.clock.phase("checkpoint", line="checkpoint"):
            self.writer.finish(wait=True)
        self.clock.enter("shutdown")
        self.watchdog.close()
        finished = self.progress.iteration == options.train_iters
        return None if finished and not self.validation_interrupted else self.stop_reason

    def _step_with_tasks(self) -> None:
        """Take a step, and do what is due after it."""
        options = self.recipe.training
        self.profiler.before_step(self.progress.iteration + 1)
        self.stop_reason = self.preemption.reason(self._step())
        self.profiler.after_step()
        step = self.progress.iteration
        last = step == options.train_iters
        if last or step % options.eval_interval == 0:
            self._validate()
        if self.stop_reason:
            self.clock.write("stop", reason=self.stop_reason)
        if last or self.stop_reason or step % options.save_interval == 0:
            self.save(last or self.stop_reason == TRIGGER_FILE)
        self._run_periodic_tasks(step)

    def save(self, last: bool) -> None:
        """Write a checkpoint of the current state.

        Args:
            last: whether it is the run's last, or one that the user asked for.
        """
        self.watchdog.enter(self.progress.iteration, "checkpoint")
        self.progress.recent_losses = self.spike_detector.recent
        when = self.recipe.training.dist_ckpt_optim_fully_reshardable
        gather = when == "always" or (last and when == "last")
        optimizer_format = FULLY_RESHARDABLE if gather else DP_RESHARDABLE
        with self.clock.phase("checkpoint", line="save"), self.timers.phase("checkpoint"):
            self.writer.save(self.progress, self.state, optimizer_format)

    def _step(self) -> list[float]:
        """Take one step, or skip it; return the sums of the processes' stop flags."""
        progress = self.progress
        start = time.monotonic()
        self.watchdog.enter(progress.iteration, "forward and backward")
        for chunk in self.state.model:
            chunk.train()
            chunk.zero_grad_buffer()
        optimizer = self.state.optimizer
        optimizer.zero_grad()
        batch_size = self.schedule.size(progress.consumed_samples)
        flags = self.preemption.stop_flags(check_trigger_file=self.rank == 0)
        result = self.train_step.run(self.batches, self._micro_batches(batch_size), flags)
        self.watchdog.enter(progress.iteration, "optimizer step")
        with self.timers.phase("optimizer"):
            grad_norm = prepare_grads(optimizer)
        spike = self.spike_detector.is_spike(result.loss)
        if spike and self._rollback(result, batch_size):
            return result.stop_flags
        # before the step: the first has a rate above 0, the last min_lr
        self.state.scheduler.step(batch_size)
        if math.isfinite(result.loss) and math.isfinite(grad_norm) and not spike:
            with self.timers.phase("optimizer"):
                update(optimizer, grad_norm)
            self.spike_detector.update(result.loss)
        else:
            self._skip_update(result, grad_norm, batch_size)
        self.timers.end_step()
        seconds = time.monotonic() - start
        progress.iteration += 1
        progress.consumed_samples += batch_size
        progress.consumed_tokens += result.tokens
        progress.seconds += seconds
        self.clock.write("step", progress.iteration)
        lr = optimizer.param_groups[0]["lr"]
        self.step_logger.log(progress, result, lr, grad_norm, batch_size, seconds)
        return result.stop_flags

    def _skip_update(self, result: StepResult, grad_norm: float, batch_size: int) -> None:
        """Record a step without an update, and the samples that caused it."""
        first = self.progress.next_sample
        samples = non_finite_samples(result, first, self.recipe.training.micro_batch_size)
        if not math.isfinite(result.loss):
            reason = "loss"
        elif not math.isfinite(grad_norm):
            reason = "gradient"
        else:
            reason = "loss spike"
        step = self.progress.iteration + 1
        shown = samples or f"{first} to {first + batch_size - 1}"
        self._count_skipped(1, f"{reason} of step {step} (samples {shown})")
        if self.log:
            record = {
                "reason": reason,
                "first_sample": first,
                "samples": batch_size,
                "not_finite": samples,
            }
            self.log.event("skipped", step, record)

    def _rollback(self, result: StepResult, batch_size: int) -> bool:
        """Load the last checkpoint and skip the data between it and the loss spike.

        Returns False when there is no checkpoint yet.
        """
        self.watchdog.enter(self.progress.iteration, "checkpoint")
        before = self.progress
        median = self.spike_detector.median
        end = before.next_sample + batch_size
        self.writer.finish(wait=True)
        folder, _ = integrity.newest_intact(self.checkpoints)
        if folder is None:
            return False
        progress = training_state.load(folder, self.state)
        step = before.iteration + 1
        record = {
            "loss": result.loss,
            "median": median,
            "from_step": step,
            "to_step": progress.iteration,
            "first_sample": progress.next_sample,
            "samples": end - progress.next_sample,
        }
        progress.skipped_samples = end - progress.consumed_samples
        progress.skipped_steps = before.skipped_steps
        progress.seconds = before.seconds
        self._start_from(progress)
        if self.log:
            self.log.rewind(progress.iteration)
            self.log.event("rolled_back", progress.iteration, record)
        reason = f"loss spike at step {step}: {result.loss:.3f}, median {median:.3f}"
        self.clock.write("rollback", progress.iteration)
        self._count_skipped(step - progress.iteration, reason)
        return True

    def _count_skipped(self, steps: int, reason: str) -> None:
        self.progress.skipped_steps += steps
        limit = self.recipe.resilience.max_skipped_steps
        if self.progress.skipped_steps > limit:
            self.watchdog.close()
            raise DataError(
                f"{self.progress.skipped_steps} steps were skipped, more than"
                f" resilience.max_skipped_steps = {limit}; the last: {reason}. If log.jsonl names"
                " the same samples repeatedly, inspect them; if the gradient norm grew before,"
                " lower optimizer.lr or lengthen the warm-up; if one rank or node stands out, check"
                " its hardware"
            )

    def _run_periodic_tasks(self, step: int) -> None:
        """Publish a written checkpoint, collect garbage, compare the processes' speed."""
        with self.clock.phase("checkpoint"), self.timers.phase("checkpoint"):
            self.writer.finish(wait=False)
        gc_interval = self.recipe.training.manual_gc_interval
        if gc_interval and step % gc_interval == 0:
            gc.collect()
        slow = self.stragglers.find(step)
        if slow and self.log:
            self.log.event("slow_ranks", step, {"ranks": slow})

    def _validation_is_missing(self) -> bool:
        """Return whether the validation of this step is due and not yet logged.

        So it is before the first step, and where a request to stop interrupted it.
        """
        step = self.progress.iteration
        options = self.recipe.training
        missing = [False]
        if self.log is not None and self.data.validation:
            due = step % options.eval_interval == 0 or step == options.train_iters
            logged = any(
                record["kind"] == "validation" and record["step"] == step
                for record in self.log.records
            )
            missing = [due and not logged]
        torch.distributed.broadcast_object_list(missing, src=0)
        return missing[0]

    def _validate(self) -> None:
        if self.data.validation:
            with self.clock.phase("validation", line="validation"):
                self._log_validation()

    @torch.no_grad()
    def _log_validation(self) -> None:
        """Compute and log the loss of each source, always over the same sequences.

        A request to stop interrupts it and nothing is logged; the next start repeats it.
        """
        self.validation_interrupted = True
        for chunk in self.state.model:
            chunk.eval()
        losses = {}
        tokens = 0
        for name, dataset in self.data.validation.items():
            measured = self._validation_loss(dataset)
            if measured is None:
                return
            losses[name] = measured[0]
            tokens += measured[1]
        self.validation_interrupted = False
        if self.log:
            total = sum(self.data.weights.values())
            mean = sum(losses[name] * self.data.weights[name] / total for name in losses)
            self.log.validation(
                self.progress.iteration, mean, tokens, losses if len(losses) > 1 else None
            )

    def _interrupts_validation(self) -> bool:
        """Return whether to interrupt a validation.

        Before the first step, when there is nothing to save yet, only a signal does.
        """
        if self.stop_reason is None:
            return False
        return self.progress.iteration > 0 or self.stop_reason in NAMES

    def _validation_loss(self, dataset: ReadOnce) -> tuple[float, int] | None:
        """Return the mean loss over a validation dataset and its number of tokens.

        None if a request to stop interrupted it.
        """
        samples = self._samples_per_micro_batch()
        multiple = 1
        if self.recipe.parallel.virtual_pipeline_model_parallel_size:
            # an interleaved pipeline takes so many micro-batches at a time
            multiple = self.recipe.parallel.pipeline_model_parallel_size
        remaining = -(-len(dataset) // (samples * multiple)) * multiple  # micro-batches per replica
        source = self._batches(dataset, 0, 0, total=remaining * samples)
        at_once = self._micro_batches(self.recipe.training.global_batch_size)
        results = []
        while remaining:
            if self._interrupts_validation():
                return None
            self.watchdog.enter(self.progress.iteration, "validation")
            flags = self.preemption.stop_flags(check_trigger_file=self.rank == 0)
            count = min(at_once, remaining)
            results.append(self.train_step.run(source, count, flags, forward_only=True))
            remaining -= count
            self.stop_reason = self.preemption.reason(results[-1].stop_flags)
        tokens = sum(result.tokens for result in results)
        return sum(result.loss * result.tokens for result in results) / tokens, tokens

    def _micro_batches(self, batch_size: int) -> int:
        """Return the micro-batches of each replica in a global batch."""
        return batch_size // self._samples_per_micro_batch()

    def _samples_per_micro_batch(self) -> int:
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
