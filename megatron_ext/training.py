"""The training loop: forward and backward through the pipeline, one optimizer step, validation, checkpoint."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from galen.errors import DataError
from megatron_ext import checkpointing, tokenised_data
from megatron_ext.architecture import Architecture
from megatron_ext.checkpointing import Progress
from megatron_ext.platforms import Platform
from megatron_ext.recipe import Recipe
from megatron_ext.run_log import RunLog


class Trainer:
    """A run between two restarts. All its methods are collective.

    Args:
        platform: what the process runs on.
        recipe: the run's configuration.
        architecture: the model's shape.
        model, optimizer, scheduler: this rank's part, restored to `progress`.
        train, validation: datasets; validation may be None.
        log: rank 0's log, None on the others.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        recipe: Recipe,
        architecture: Architecture,
        model: DistributedDataParallel,
        optimizer: MegatronOptimizer,
        scheduler: OptimizerParamScheduler,
        progress: Progress,
        train: Any,
        validation: Any,
        log: RunLog | None,
    ) -> None:
        self.platform, self.recipe, self.architecture = platform, recipe, architecture
        self.model, self.optimizer, self.scheduler, self.progress = model, optimizer, scheduler, progress
        self.train_data, self.validation_data, self.log = train, validation, log
        self.micro_batches = recipe.training.global_batch_size // (
            recipe.training.micro_batch_size * parallel_state.get_data_parallel_world_size()
        )
        self._schedule = get_forward_backward_func()

    def run(self) -> None:
        """Train to the recipe's last step, with validations and checkpoints on the way."""
        options, progress = self.recipe.training, self.progress
        batches = self._batches(self.train_data, progress.consumed_samples, options.train_iters)
        if progress.iteration == 0:
            self._validate()
        while progress.iteration < options.train_iters:
            self._step(batches)
            last = progress.iteration == options.train_iters
            if last or progress.iteration % options.eval_interval == 0:
                self._validate()
            if last or progress.iteration % options.save_interval == 0:
                self.save()

    def save(self) -> None:
        """Write a checkpoint of the present state."""
        checkpointing.save(
            Path(self.recipe.output) / "checkpoints",
            self.progress,
            self.architecture,
            self.model,
            self.optimizer,
            self.scheduler,
            self.recipe.training.keep_checkpoints,
        )

    def _step(self, batches: Iterator[dict[str, Tensor]]) -> None:
        options, progress = self.recipe.training, self.progress
        start = time.monotonic()
        self.model.train()
        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        loss_sum, tokens = self._forward_backward(batches, forward_only=False)
        self.scheduler.step(options.global_batch_size)  # before the step: the first has a rate above 0, the last min_lr
        _, grad_norm, _ = self.optimizer.step()
        seconds = time.monotonic() - start
        progress.iteration += 1
        progress.consumed_samples += options.global_batch_size
        progress.consumed_tokens += tokens
        progress.seconds += seconds
        if self.log and progress.iteration % options.log_interval == 0:
            rate = options.global_batch_size * self.recipe.data.seq_length / seconds
            figures = {
                "step": progress.iteration,
                "loss": loss_sum / tokens,
                "lr": self.optimizer.param_groups[0]["lr"],
                "grad_norm": float(grad_norm),
                "consumed_samples": progress.consumed_samples,
                "tokens": progress.consumed_tokens,
                "tokens_per_second": rate,
                "mfu": self._mfu(rate),
                "elapsed": progress.seconds,
            }
            self.log.train(figures)

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Return the share of the devices' peak bf16 rate that the model's own FLOPs take, where the peak is known."""
        if self.platform.peak_flops is None:
            return None
        needed = tokens_per_second * self.architecture.flops_per_token(self.recipe.data.seq_length)
        return needed / (self.platform.peak_flops * torch.distributed.get_world_size())

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the loss over the same validation batches each time."""
        options = self.recipe.training
        if self.validation_data is None:
            return
        self.model.eval()
        batches = self._batches(self.validation_data, 0, options.eval_iters)
        sums = [self._forward_backward(batches, forward_only=True) for _ in range(options.eval_iters)]
        loss_sum, tokens = (sum(part) for part in zip(*sums, strict=True))
        if self.log:
            self.log.validation(self.progress.iteration, loss_sum / tokens, int(tokens))

    def _batches(self, dataset: Any, consumed: int, iterations: int) -> Iterator[dict[str, Tensor]]:
        options = self.recipe.training
        sampler = tokenised_data.BatchSampler(
            total=iterations * options.global_batch_size,
            consumed=consumed,
            micro_batch_size=options.micro_batch_size,
            rank=parallel_state.get_data_parallel_rank(),
            ranks=parallel_state.get_data_parallel_world_size(),
        )
        return tokenised_data.loader(dataset, sampler, self.recipe.data.num_workers, pin_memory=self.platform.pin_memory)

    def _forward_backward(self, batches: Iterator[dict[str, Tensor]], forward_only: bool) -> tuple[float, int]:
        """Run one global batch through the pipeline; return the sum of its losses and its number of tokens, over all ranks."""
        options = self.recipe.training
        reports = self._schedule(
            forward_step_func=self._forward_step,
            data_iterator=batches,
            model=[self.model],
            num_microbatches=self.micro_batches,
            seq_length=self.recipe.data.seq_length,
            micro_batch_size=options.micro_batch_size,
            forward_only=forward_only,
        )
        total = torch.zeros(2, dtype=torch.float64, device=self.platform.device)
        if parallel_state.get_tensor_model_parallel_rank() == 0:  # the others hold the same figures
            for report in reports:  # empty on all but the last pipeline stage
                total += report["sums"]
        torch.distributed.all_reduce(total)
        loss_sum, tokens = total.tolist()
        if tokens == 0:
            raise DataError("a whole batch has no token to learn from: every label is masked; check data.eod_mask_loss and the data")
        return loss_sum, int(tokens)

    def _forward_step(self, batches: Iterator[dict[str, Tensor]], model: DistributedDataParallel) -> tuple[Tensor, Callable]:
        """Run one micro-batch through this stage; return its output and the function that makes a loss of the last one's."""
        batch = {name: tensor.to(self.platform.device, non_blocking=True) for name, tensor in next(batches).items()}
        output = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"])
        return output, partial(_loss, batch["loss_mask"])


def _loss(loss_mask: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the summed loss, the number of tokens in it, and both for the report (Megatron's per-token convention).

    Args:
        loss_mask: [batch, sequence], 1 where a label counts.
        losses: [batch, sequence], cross entropy in nats.
    """
    loss = (losses.float() * loss_mask).sum()
    tokens = loss_mask.sum()
    return loss, tokens.to(torch.int), {"sums": torch.stack([loss.detach(), tokens]).double()}
