"""The order of samples in training, the same for any number of processes."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler

from finetune.data.sample import BLANK, Sample

Row = Sample | list[Sample]
"""Row of a batch: a sample, or several packed ones."""


class Rows(Dataset[Row]):
    """Rows for PyTorch's data loader, followed by blank ones that pad an epoch's last step."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._blank: Row = [BLANK] if rows and isinstance(rows[0], list) else BLANK

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index] if index < len(self.rows) else self._blank


class EpochSampler(Sampler[int]):
    """Indices of rows, shuffled for each epoch and padded with blank ones to complete steps.

    A step's rows depend only on the seed and the global batch, not on the number of processes.

    Args:
        rows: all rows.
        global_batch: rows in an optimizer step over all processes.
        seed: seed of the order.
    """

    def __init__(self, rows: Sequence[Row], global_batch: int, seed: int) -> None:
        self.rows = rows
        self.global_batch = global_batch
        self.seed = seed
        self.steps = -(-len(rows) // global_batch)
        """Optimizer steps in an epoch."""
        self._epoch = 0
        # rows x (samples, tokens)
        self._sizes = torch.tensor([_size(row) for row in rows]).view(-1, 2)

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.global_batch

    def __iter__(self) -> Iterator[int]:
        """Yield the row indices of an epoch."""
        yield from self._shuffled(self._epoch).tolist()
        yield from range(len(self.rows), len(self))

    def consumed(self, step: int) -> tuple[int, int]:
        """Return the samples and tokens of the first `step` steps, without padding."""
        epochs, steps = divmod(step, self.steps)
        partial = self._sizes[self._shuffled(epochs)[: steps * self.global_batch]].sum(0)
        samples, tokens = (epochs * self._sizes.sum(0) + partial).tolist()
        return samples, tokens

    def _shuffled(self, epoch: int) -> torch.Tensor:
        return torch.randperm(
            len(self.rows), generator=torch.Generator().manual_seed(self.seed + epoch)
        )


def _size(row: Row) -> tuple[int, int]:
    samples = row if isinstance(row, list) else [row]
    return len(samples), sum(map(len, samples))
