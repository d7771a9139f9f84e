"""Batches of samples. Padded on the left, so that the answers end all rows and logits are needed at the last positions only."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finetune.sample import IGNORED, Sample


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the model's keyword arguments for a batch.

    `labels` covers the last `logits_to_keep` positions only: one more than the longest answer, since a token is predicted
    one position before. So labels[:, 0] is always ignored, and every answer token has its logits.
    """
    longest = max(len(sample) for sample in samples)
    keep = max(len(sample.answer) for sample in samples) + 1
    tokens_bs = torch.zeros((len(samples), longest), dtype=torch.long)  # b: samples, s: positions
    mask_bs = torch.zeros_like(tokens_bs)
    labels_bs = torch.full_like(tokens_bs, IGNORED)
    for row, sample in enumerate(samples):
        start = longest - len(sample)
        tokens_bs[row, start:] = torch.tensor(sample.prompt + sample.answer)
        mask_bs[row, start:] = 1
        labels_bs[row, start:] = torch.tensor(sample.labels)
    return {
        "input_ids": tokens_bs,
        "attention_mask": mask_bs,
        "position_ids": (mask_bs.cumsum(1) - 1).clamp(min=0),
        "labels": labels_bs[:, -keep:],
        "logits_to_keep": keep,
    }


def loss_sum(logits_bkv: Tensor, labels_bk: Tensor) -> Tensor:
    """Return the summed cross-entropy (nats) of the labelled tokens, each predicted from the position before it."""
    return torch.nn.functional.cross_entropy(
        logits_bkv[:, :-1].float().flatten(0, 1), labels_bk[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
