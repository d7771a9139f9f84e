"""Batches: samples padded on the left, or several packed into a row.

With left padding the answers end all rows, so that only the last positions need logits. A packed
sample attends only to itself.
"""

import heapq
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finetune.data.sample import BLANK, IGNORE_INDEX, Sample


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the model's keyword arguments for a batch.

    `labels` covers the last `logits_to_keep` positions only: one more than the longest stretch from
    a sample's first answer token to its end, since a token is predicted one position before. So
    labels[:, 0] is always ignored, and every answer token has its logits.
    """
    longest = max(len(sample) for sample in samples)
    answers = [len(sample) - sample.first_label for sample in samples if sample is not BLANK]
    keep = min(max(answers, default=0) + 1, longest)
    tokens_bs = torch.zeros((len(samples), longest), dtype=torch.long)  # b: samples, s: positions
    mask_bs = torch.zeros_like(tokens_bs)
    labels_bs = torch.full_like(tokens_bs, IGNORE_INDEX)
    for row, sample in enumerate(samples):
        start = longest - len(sample)
        tokens_bs[row, start:] = torch.tensor(sample.tokens)
        mask_bs[row, start:] = 1
        labels_bs[row, start:] = torch.tensor(sample.labels)
    return {
        "input_ids": tokens_bs,
        "attention_mask": mask_bs,
        "position_ids": (mask_bs.cumsum(1) - 1).clamp(min=0),
        "labels": labels_bs[:, -keep:],
        "logits_to_keep": keep,
        "use_cache": False,
    }


def pack(samples: Sequence[Sample], max_length: int) -> list[list[Sample]]:
    """Return the samples packed into rows of at most `max_length` tokens.

    In order of decreasing length, each sample goes into the row with the most free tokens, or a new
    one. Deterministic; close to the minimum number of rows if samples are much shorter than a row.
    """
    room: list[tuple[int, int]] = []  # tokens used (the least on top of the heap), row
    rows: list[list[Sample]] = []
    for sample in sorted(samples, key=len, reverse=True):
        if room and room[0][0] + len(sample) <= max_length:
            used, row = heapq.heappop(room)
        else:
            used = 0
            row = len(rows)
            rows.append([])
        rows[row].append(sample)
        heapq.heappush(room, (used + len(sample), row))
    return rows


def collate_packed(rows: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Return the model's keyword arguments for a batch of packed rows.

    Positions restart at 0 in each sample, and there is no attention mask: from that, `transformers`
    (`masking_utils`) builds a block-diagonal one, so that no token sees another sample. The padding
    of a row counts as one more sample, without labels.
    """
    lengths = [sum(map(len, row)) for row in rows]
    longest = max(lengths)
    tokens_bs = torch.zeros((len(rows), longest), dtype=torch.long)
    positions_bs = torch.zeros_like(tokens_bs)
    labels_bs = torch.full_like(tokens_bs, IGNORE_INDEX)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        tokens = itertools.chain.from_iterable(sample.tokens for sample in row)
        labels = itertools.chain.from_iterable(sample.labels for sample in row)
        tokens_bs[index, :length] = torch.tensor(list(tokens))
        labels_bs[index, :length] = torch.tensor(list(labels))
        sizes = [*map(len, row), longest - length]
        positions_bs[index] = torch.cat([torch.arange(size) for size in sizes])
    return {
        "input_ids": tokens_bs,
        "position_ids": positions_bs,
        "labels": labels_bs,
        "use_cache": False,
    }


def loss_sum(logits_bkv: Tensor, labels_bk: Tensor) -> Tensor:
    """Return the summed cross-entropy (nats) of the labels, each predicted one position before."""
    return torch.nn.functional.cross_entropy(
        logits_bkv[:, :-1].float().flatten(0, 1),
        labels_bk[:, 1:].flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )
