"""Micro-batches of a process: sampler, loader, packing, context parallelism."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from megatron_ext.model.attention import context_parallel_positions
from megatron_ext.resilience.signals import block_signals

_PACKED_FIELDS = {field.name for field in dataclasses.fields(PackedSeqParams)}


class BatchSampler:
    """Yields this data-parallel rank's micro-batches of sample indices.

    The first one follows `consumed` samples. Sample n of the run is the same for any number of
    ranks and any micro-batch size.
    """

    def __init__(
        self, *, total: int, consumed: int, micro_batch_size: int, rank: int, ranks: int
    ) -> None:
        self.total = total
        self.consumed = consumed
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.ranks = ranks

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of `micro_batch_size` indices."""
        step = self.micro_batch_size * self.ranks
        for start in range(self.consumed, self.total - step + 1, step):
            first = start + self.rank * self.micro_batch_size
            yield list(range(first, first + self.micro_batch_size))


def loader(
    dataset: Any, sampler: BatchSampler, num_workers: int, pin_memory: bool
) -> Iterator[dict[str, Tensor]]:
    """Yield micro-batches `{tokens, labels, loss_mask, position_ids}` on the CPU.

    Each tensor is [micro batch, sequence]. Datasets that know their padding add `padding`, which is
    true there.
    """
    # a SIGTERM to all processes of a job would kill the workers, and with them the run before its
    # checkpoint
    with block_signals():
        return iter(
            torch.utils.data.DataLoader(
                dataset, batch_sampler=sampler, num_workers=num_workers, pin_memory=pin_memory
            )
        )


def context_parallel_slice(
    batch: dict[str, Tensor], bounds: Tensor | None = None
) -> dict[str, Tensor]:
    """Return this context-parallel process's tokens, [micro batch, sequence / processes].

    Args:
        batch: tensors [micro batch, sequence], on the device.
        bounds: where the documents of a row begin and the last ends, on the CPU; None to divide
            the sequences instead.
    """
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks == 1:
        return batch
    if bounds is None:
        bounds = torch.tensor([0, batch["tokens"].size(1)])
    rank = parallel_state.get_context_parallel_rank()
    positions = context_parallel_positions(bounds, rank, ranks)
    positions = positions.to(batch["tokens"].device, non_blocking=True)
    return {name: tensor[:, positions] for name, tensor in batch.items()}


def pack_documents(
    batch: dict[str, Tensor], device: torch.device
) -> tuple[dict[str, Tensor], PackedSeqParams, Tensor]:
    """Return the batch as one row, [1, micro batch x sequence], and its document boundaries.

    The boundaries are those of the complete row, for the model, and once more on the CPU, for
    `context_parallel_slice`. Padding counts as the end of its document: causal attention hides it
    from the document's tokens, and it has no loss.

    Args:
        batch: tensors [micro batch, sequence] on the CPU; `position_ids` are 0 where a document
            begins, and at a row's beginning.
        device: of the boundaries for the model.
    """
    positions = batch["position_ids"].flatten()
    bounds = torch.cat(
        [(positions == 0).nonzero().flatten(), torch.tensor([positions.numel()])]
    ).to(torch.int32)
    longest = int(bounds.diff().max())
    row = {name: tensor.reshape(1, -1) for name, tensor in batch.items()}
    on_device = bounds.to(device, non_blocking=True)
    options: dict[str, Any] = {}
    if parallel_state.get_context_parallel_world_size() > 1:
        # Transformer Engine divides each document by these; they are the same tensor where it has
        # nothing to hide from attention
        options = {"cu_seqlens_q_padded": on_device, "cu_seqlens_kv_padded": on_device}
        if "pad_between_seqs" in _PACKED_FIELDS:
            options["pad_between_seqs"] = False  # or it would compare them in each layer
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=on_device,
        cu_seqlens_kv=on_device,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        **options,
    )
    return row, packed, bounds
