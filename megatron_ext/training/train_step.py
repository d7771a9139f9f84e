"""One global batch through the pipeline: forward, backward, and sums over all processes."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from galen.errors import DataError
from megatron_ext.config.recipe import Recipe
from megatron_ext.data.batches import pack_documents, part_of_sequence
from megatron_ext.hardware.platforms import Platform
from megatron_ext.training.stragglers import WorkTimer

Batches = Iterator[dict[str, Tensor]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a global batch."""

    loss: float
    """Mean over its tokens, in nats."""
    tokens: int
    """Tokens that took part in the loss."""
    flags: list[float]
    """Sums of the flags that the processes gave."""
    rows: list[Tensor]
    """On the last stage, per micro-batch the summed loss of each of its sequences [micro batch]."""


class GlobalBatch:
    """Runs global batches. All its methods are collective.

    Args:
        platform: what the process runs on.
        recipe: the run's configuration.
        model: this process's pieces of the model.
    """

    def __init__(
        self, platform: Platform, recipe: Recipe, model: list[DistributedDataParallel]
    ) -> None:
        self.platform, self.model = platform, model
        self.timer = WorkTimer(platform, on=recipe.resilience.straggler_interval > 0)
        self.seconds = 0.0
        """That this process computed in training, until someone sets it back."""
        self.length, self.micro_batch_size = (
            recipe.data.seq_length,
            recipe.training.micro_batch_size,
        )
        self.packed = recipe.data.reset_attention_mask
        self._schedule = get_forward_backward_func()

    def run(
        self, batches: Batches, micro_batches: int, flags: list[float], forward_only: bool = False
    ) -> Outcome:
        """Run `micro_batches` of this process's micro-batches, in step with all its replicas.

        Args:
            batches: where they come from.
            micro_batches: how many each replica takes.
            flags: figures of this process that are summed over all on the way.
            forward_only: compute losses, no gradients.

        Raises:
            DataError: no token of the batch counts.
        """
        pieces = len(self.model)
        reports = self._schedule(
            forward_step_func=self._forward_step,
            data_iterator=list(itertools.tee(batches, pieces)) if pieces > 1 else batches,
            model=self.model,
            num_microbatches=micro_batches,
            seq_length=self.length * self.micro_batch_size if self.packed else self.length,
            micro_batch_size=1 if self.packed else self.micro_batch_size,
            forward_only=forward_only,
        )
        total = torch.zeros(2, dtype=torch.float64, device=self.platform.device)
        if parallel_state.get_tensor_model_parallel_rank() == 0:  # the others hold the same figures
            for report in reports:  # empty on all but the last pipeline stage
                total += report["sums"]
        total = torch.cat(
            [total, torch.tensor(flags, dtype=torch.float64, device=self.platform.device)]
        )
        torch.distributed.all_reduce(total)
        loss_sum, tokens, *summed = total.tolist()  # waits for the device
        seconds = self.timer.take()
        self.seconds += 0.0 if forward_only else seconds
        if tokens == 0:
            raise DataError(
                "a whole batch has no token to learn from: every label is masked; check"
                " data.eod_mask_loss and the data"
            )
        return Outcome(
            loss_sum / tokens, int(tokens), summed, [report["rows"] for report in reports]
        )

    def _forward_step(
        self, batches: Batches, model: DistributedDataParallel
    ) -> tuple[Tensor, Callable]:
        """Run one micro-batch through this stage; return its output and loss function.

        The function makes the loss from the last stage's output.
        """
        batch, packed = next(batches), None
        if self.packed:
            batch, packed = pack_documents(batch, self.platform.device)
        batch = part_of_sequence(batch)
        batch = {
            name: tensor.to(self.platform.device, non_blocking=True)
            for name, tensor in batch.items()
        }
        self.timer.start()
        extra: dict[str, Any] = {} if packed is None else {"packed_seq_params": packed}
        output = model(
            batch["tokens"], batch["position_ids"], None, labels=batch["labels"], **extra
        )
        self.timer.stop()
        return output, partial(_loss, batch["loss_mask"], self.micro_batch_size)


def _loss(
    loss_mask: Tensor, sequences: int, losses: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the summed loss, its number of tokens, and both for the report.

    This is Megatron's per-token convention.

    Args:
        loss_mask: [batch, sequence], 1 where a label counts.
        sequences: how many the micro-batch holds.
        losses: [batch, sequence], cross entropy in nats.
    """
    rows = (losses.float() * loss_mask).view(sequences, -1).sum(1)
    loss, tokens = rows.sum(), loss_mask.sum()
    report = {"sums": torch.stack([loss.detach(), tokens]).double(), "rows": rows.detach()}
    return loss, tokens.to(torch.int), report


def samples_not_finite(outcome: Outcome, first: int, micro_batch_size: int) -> list[int]:
    """Return the samples of a global batch whose own loss is not finite (collective).

    The batch begins at sample `first`. Empty when the losses are finite and only a gradient is not:
    it belongs to all samples.
    """
    rank, ranks = (
        parallel_state.get_data_parallel_rank(),
        parallel_state.get_data_parallel_world_size(),
    )
    found = [
        first + (number * ranks + rank) * micro_batch_size + row
        for number, rows in enumerate(outcome.rows)
        for row, loss in enumerate(rows.tolist())
        if not math.isfinite(loss)
    ]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, found)
    return sorted({sample for part in everyone for sample in part})
