"""Cross entropy computed a block of rows at a time, to keep the logits in a CPU's cache.

Megatron Core's own makes each pass (float32 copy, maximum, difference, exponential, sum, quotient)
over all logits at once, which on a CPU is a tenth of a small model's step. Here no second tensor of
that size is made: in float32 the logits become the exponentials, then the gradient; in bf16 the
exponentials are computed again in the backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp

BLOCK = 2**19  # logits in a block: 2 MiB in float32


class BlockwiseCrossEntropy(torch.autograd.Function):
    """`logsumexp(logits) - logits[label]` over a vocabulary split among tensor-parallel ranks."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, true_rows: int, group: ProcessGroup
    ) -> Tensor:
        """Return the loss of each token, float32, [tokens].

        Args:
            ctx: passes tensors to the backward pass.
            logits: [tokens, rows of this process's part of the vocabulary]; overwritten.
            labels: [tokens], ids of the entire vocabulary.
            true_rows: rows of the part that belong to a token; the padding after them gets no
                probability.
            group: the processes that hold the other parts.
        """
        row, is_local = _local_rows(labels, logits.size(1), group)
        picked = logits.gather(1, row[:, None])[:, 0].float() * is_local
        max_logit, total = torch.empty(2, logits.size(0), device=logits.device)
        for block in _blocks(logits):
            part = logits[block].float()  # the same memory where the logits are float32
            max_logit[block] = part[:, :true_rows].amax(1)
            total[block] = _exponentials(part, max_logit[block], true_rows).sum(1)
        log_sum = max_logit + total.log()
        if group.size() > 1:
            top = log_sum.clone()
            torch.distributed.all_reduce(top, ReduceOp.MAX, group)
            sums = torch.stack([torch.exp(log_sum - top), picked])
            torch.distributed.all_reduce(sums, group=group)
            log_sum = sums[0].log() + top
            picked = sums[1]
        ctx.save_for_backward(logits, max_logit, torch.exp(max_logit - log_sum), row, is_local)
        ctx.true_rows = true_rows
        return log_sum - picked

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the logits, in their own memory.

        It is `(softmax - one at the label) x gradient of the loss`.
        """
        logits, max_logit, scale, row, is_local = ctx.saved_tensors
        (gradient,) = gradients
        scale = scale * gradient
        at_label = -gradient * is_local
        for block in _blocks(logits):
            part = logits[block]
            if part.dtype != torch.float32:
                part = _exponentials(part.float(), max_logit[block], ctx.true_rows)
            part.mul_(scale[block, None]).scatter_add_(1, row[block, None], at_label[block, None])
            logits[block] = part
        return logits, None, None, None


def _exponentials(part: Tensor, max_logit: Tensor, true_rows: int) -> Tensor:
    """Turn float32 logits [tokens, rows] in place into `exp(logits - max_logit)`, 0 for padding."""
    part.sub_(max_logit[:, None]).exp_()
    part[:, true_rows:] = 0
    return part


def _local_rows(labels: Tensor, rows: int, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Return each label's row in this process's part of the vocabulary, and whether it has one.

    The row is 0 for labels of another process.
    """
    row = labels - rows * group.rank()
    is_local = (row >= 0) & (row < rows)
    return row.masked_fill(~is_local, 0), is_local


def _blocks(logits: Tensor) -> Iterator[slice]:
    size = max(1, BLOCK // logits.size(1))
    return (slice(start, start + size) for start in range(0, logits.size(0), size))
