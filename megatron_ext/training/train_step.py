"""Forward and backward passes of one global batch, and its sums over all processes."""

import contextlib
import dataclasses
import itertools
import math
import socket
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
from megatron_ext.data.batches import context_parallel_slice, pack_documents
from megatron_ext.hardware.platforms import Platform
from megatron_ext.model.router import BalancedRouter
from megatron_ext.observability.step_timers import StepTimers

Batches = Iterator[dict[str, Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepResult:
    """Figures of a global batch, the same on all processes but for `losses`."""

    loss: float
    """Mean over its tokens, in nats."""
    tokens: int
    """Tokens in the loss."""
    padding: int
    """Tokens that pad documents or sequences, as far as the dataset knows them."""
    context_length: float
    """Mean, over all other tokens, of the length of the text that a token's attention belongs to.

    That is the document where documents are kept apart, else the sequence.
    """
    stop_flags: list[float]
    """Sums of the processes' flags."""
    losses: list[Tensor]
    """On the last stage, for each micro-batch the summed loss of each sequence [micro batch]."""


class TrainStep:
    """Runs global batches through the pipeline. All its methods are collective.

    Args:
        platform: of this process.
        recipe: the run's configuration.
        model: this process's model chunks.
    """

    def __init__(
        self, platform: Platform, recipe: Recipe, model: list[DistributedDataParallel]
    ) -> None:
        self.platform = platform
        self.model = model
        self.seq_length = recipe.data.seq_length
        self.micro_batch_size = recipe.training.micro_batch_size
        self.packed = recipe.data.reset_attention_mask
        self.timers = StepTimers(platform.new_event)
        for chunk in model:
            finalize = chunk.config.finalize_model_grads_func
            if finalize is not None:
                chunk.config.finalize_model_grads_func = self.timers.wrap(finalize, "gradient_sync")
        self._is_moe = model[0].config.num_moe_experts is not None
        BalancedRouter.packed_length = self.seq_length if self.packed else None
        self._forward_backward = get_forward_backward_func()

    def run(
        self,
        batches: Batches,
        micro_batches: int,
        stop_flags: list[float],
        forward_only: bool = False,
    ) -> StepResult:
        """Run `micro_batches` micro-batches on each replica.

        Args:
            batches: this replica's micro-batches.
            micro_batches: of each replica.
            stop_flags: of this process; they are summed over all in the same collective.
            forward_only: compute losses, no gradients.

        Raises:
            DataError: no token of the batch counts; or `check_for_nan_in_grad` found a non-finite
                gradient.
        """
        if self._is_moe and not forward_only:
            batches = self._set_loss_fraction(batches, micro_batches)
        chunks = len(self.model)
        rows = self.micro_batch_size if self.packed else 1  # packed into one row
        phase = "validation" if forward_only else "forward_backward"
        with self.timers.phase(phase), _name_non_finite_gradients():
            reports = self._forward_backward(
                forward_step_func=self._forward_step,
                data_iterator=list(itertools.tee(batches, chunks)) if chunks > 1 else batches,
                model=self.model,
                num_microbatches=micro_batches,
                seq_length=self.seq_length * rows,
                micro_batch_size=self.micro_batch_size // rows,
                forward_only=forward_only,
            )
        with self.timers.phase(phase):
            sums = self._sum_over_processes(reports, stop_flags)
        self.timers.collect()
        loss_sum, tokens, padding, others, squares, *summed_flags = sums
        if tokens == 0:
            raise DataError(
                "a global batch has no token in the loss: every label is masked; check"
                " data.eod_mask_loss and the data"
            )
        return StepResult(
            loss=loss_sum / tokens,
            tokens=int(tokens),
            padding=int(padding),
            context_length=squares / others,
            stop_flags=summed_flags,
            losses=[report["losses"] for report in reports],
        )

    def _set_loss_fraction(self, batches: Batches, micro_batches: int) -> Batches:
        """Count the tokens in the loss before the routers need their fraction; return the batches.

        The gradient is divided by the number of these tokens, and the routers' losses are means
        over all tokens.
        """
        with self.timers.phase("data"):
            read = list(itertools.islice(batches, micro_batches))
        counts = torch.zeros(2, dtype=torch.float64)
        for batch in read:
            counts[0] += batch["loss_mask"].sum()
            counts[1] += batch["loss_mask"].numel()
        counts = counts.to(self.platform.device)
        torch.distributed.all_reduce(counts)
        in_loss, tokens = counts.tolist()
        BalancedRouter.loss_fraction = in_loss / tokens
        return iter(read)

    def _sum_over_processes(
        self, reports: list[dict[str, Tensor]], stop_flags: list[float]
    ) -> list[float]:
        """Return the sums of `_loss` and `_count`, and the flags; waits for the device."""
        total = torch.zeros(5, dtype=torch.float64, device=self.platform.device)
        # the other tensor-parallel ranks hold the same figures
        if parallel_state.get_tensor_model_parallel_rank() == 0:
            for report in reports:  # empty on all but the last pipeline stage
                total[:2] += report["sums"]
                # context-parallel ranks hold parts of the same sequences
                if parallel_state.get_context_parallel_rank() == 0:
                    total[2:] += report["counts"].to(total.device)
        flags = torch.tensor(stop_flags, dtype=torch.float64, device=self.platform.device)
        total = torch.cat([total, flags])
        torch.distributed.all_reduce(total)
        return total.tolist()  # type: ignore[no-any-return]

    def _forward_step(
        self, batches: Batches, model: DistributedDataParallel
    ) -> tuple[Tensor, Callable]:
        """Run one micro-batch through this stage; return its output and loss function.

        The function computes the loss from the last stage's output.
        """
        with self.timers.phase("data" if model.training else "validation"):
            batch = dict(next(batches))  # an interleaved pipeline's chunks read the same
        counts = _count(batch["position_ids"], batch.pop("padding", None))
        extra: dict[str, Any] = {}
        bounds = None
        if self.packed:
            batch, extra["packed_seq_params"], bounds = pack_documents(batch, self.platform.device)
        # before the slice, whose result would no longer be in pinned memory
        batch = {
            name: tensor.to(self.platform.device, non_blocking=True)
            for name, tensor in batch.items()
        }
        batch = context_parallel_slice(batch, bounds)
        output = model(
            batch["tokens"], batch["position_ids"], None, labels=batch["labels"], **extra
        )
        return output, partial(_loss, batch["loss_mask"], self.micro_batch_size, counts)


def _count(position_ids: Tensor, padding: Tensor | None) -> Tensor:
    """Return the tokens of padding, all others, and the sum of the texts' squared lengths.

    A text of n tokens has the positions 0 to n - 1, of which 2 x position + 1 adds up to n x n.

    Args:
        position_ids: [micro batch, sequence].
        padding: the same, true at padding; None where the dataset does not know it.
    """
    if padding is None:
        padding = torch.zeros_like(position_ids, dtype=torch.bool)
    squares = (2 * position_ids + 1).masked_fill(padding, 0).sum()
    return torch.stack([padding.sum(), (~padding).sum(), squares])


@contextlib.contextmanager
def _name_non_finite_gradients() -> Iterator[None]:
    """Report the core's error of `check_for_nan_in_grad`.

    Raises:
        DataError: this rank's own gradient is not finite.
    """
    try:
        yield
    except RuntimeError as error:
        if "in local grad norm for bucket" not in str(error):
            raise
        raise DataError(
            f"a gradient of rank {torch.distributed.get_rank()} on {socket.gethostname()} is not"
            f" finite (resilience.check_for_nan_in_grad): {str(error).splitlines()[0]}; check that"
            " GPU and the data of the step, or set the key to false to skip such steps"
        ) from None


def _loss(
    loss_mask: Tensor, sequences: int, counts: Tensor, losses: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the summed loss, its number of tokens, and both for the report.

    This is Megatron's per-token convention.

    Args:
        loss_mask: [batch, sequence], 1 where a label counts.
        sequences: number of them in the micro-batch.
        counts: of the micro-batch by `_count`, for the report.
        losses: [batch, sequence], cross entropy in nats.
    """
    by_sequence = (losses.float() * loss_mask).view(sequences, -1).sum(1)
    loss = by_sequence.sum()
    tokens = loss_mask.sum()
    sums = torch.stack([loss.detach(), tokens]).double()
    report = {"sums": sums, "counts": counts, "losses": by_sequence.detach()}
    return loss, tokens.to(torch.int), report


def non_finite_samples(result: StepResult, first: int, micro_batch_size: int) -> list[int]:
    """Return the samples of a global batch whose own loss is not finite (collective).

    Empty when the losses are finite and only a gradient is not: it belongs to all samples.

    Args:
        result: of the batch.
        first: its first sample.
        micro_batch_size: sequences in each of `result.losses`.
    """
    rank = parallel_state.get_data_parallel_rank()
    replicas = parallel_state.get_data_parallel_world_size()
    own = []
    for number, losses in enumerate(result.losses):
        start = first + (number * replicas + rank) * micro_batch_size
        for offset, loss in enumerate(losses.tolist()):
            if not math.isfinite(loss):
                own.append(start + offset)
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, own)
    return sorted(set(itertools.chain.from_iterable(gathered)))
