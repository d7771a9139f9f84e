"""Passes over the documents of a file; a sequence belongs to one pass."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor


class Samples(Protocol):
    """A dataset of sequences `{tokens, labels, loss_mask, position_ids}`."""

    def __len__(self) -> int:
        """Return the number of sequences."""

    def __getitem__(self, sample: int) -> Mapping[str, Tensor]:
        """Return a sequence."""


class Passes(torch.utils.data.Dataset):
    """Repeats a dataset that holds each document once, pass after pass, for a number of samples.

    The first pass is in the dataset's own order, each later one in another. A sequence belongs to
    one pass, so that no document shares a context with its own repetition.

    Args:
        once: the dataset; its last sequence may end with padding.
        samples: number of samples.
        seed: of the order of the later passes.
    """

    def __init__(self, once: Samples, samples: int, seed: int) -> None:
        self.once = once
        self._samples = samples
        self._seed = seed
        self.per_pass = len(once)
        """Samples of one pass."""
        # the last pass that was read, and its order
        self._order: tuple[int, Any] = (0, range(len(once)))

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, sample: int) -> Mapping[str, Tensor]:
        number, index = divmod(sample, len(self.once))
        if number != self._order[0]:
            self._order = (number, self._pass_order(number))
        return self.once[int(self._order[1][index])]

    def _pass_order(self, number: int) -> Any:
        if number == 0:
            return range(len(self.once))
        return (
            numpy.random.default_rng([self._seed, number])
            .permutation(len(self.once))
            .astype(numpy.int32)
        )


class ReadOnce(torch.utils.data.Dataset):
    """Samples for validation: a fixed subset, each document at most once.

    Indices beyond the last sample give padding without a token in the loss, which completes the
    processes' batches.

    Args:
        files: a dataset for each file, which holds each document once, in random order.
        samples: maximum number; if the files have more, a random subset.
        seed: of the subset.
    """

    def __init__(self, files: Sequence[Samples], samples: int, seed: int) -> None:
        self._files = files
        self._bounds = numpy.cumsum([0, *(len(file) for file in files)])
        self.available = int(self._bounds[-1])
        """Number of samples in the files."""
        order = numpy.arange(self.available)  # each file is in a random order of its own
        if len(files) > 1:
            order = numpy.random.default_rng(seed).permutation(self.available)
        self._chosen = order[:samples]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, sample: int) -> Mapping[str, Tensor]:
        if sample >= len(self):
            first = self[0]
            return {**first, "loss_mask": torch.zeros_like(first["loss_mask"])}
        index = int(self._chosen[sample])
        file = int(numpy.searchsorted(self._bounds, index, side="right")) - 1
        return self._files[file][index - int(self._bounds[file])]
