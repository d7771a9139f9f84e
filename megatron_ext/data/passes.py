"""Passes over the data of a file; no two passes share a sequence."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor


class Samples(Protocol):
    """A dataset of sequences `{tokens, labels, loss_mask, position_ids}`."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, sample: int) -> Mapping[str, Tensor]:
        """Return one of them."""


class Passes(torch.utils.data.Dataset):
    """As many samples as a run wants of a dataset that holds each document once: pass after pass.

    The first pass is in the dataset's own order, each later one in another. A sequence belongs to
    one pass, so that no document meets its own repetition in a context.

    Args:
        once: the dataset; its last sequence may be filled up with padding.
        samples: how many are wanted.
        seed: decides the order of the later passes.
    """

    def __init__(self, once: Samples, samples: int, seed: int) -> None:
        self.once, self._samples, self._seed = once, samples, seed
        self.per_pass = len(once)
        """Samples in which all is read once."""
        # the pass that was read last, and its order
        self._order: tuple[int, Any] = (0, range(len(once)))

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, sample: int) -> Mapping[str, Tensor]:
        number, place = divmod(sample, len(self.once))
        if number != self._order[0]:
            self._order = (number, self._order_of(number))
        return self.once[int(self._order[1][place])]

    def _order_of(self, number: int) -> Any:
        if number == 0:
            return range(len(self.once))
        return (
            numpy.random.default_rng([self._seed, number])
            .permutation(len(self.once))
            .astype(numpy.int32)
        )


class ReadOnce(torch.utils.data.Dataset):
    """Samples for validation: at most so many, each document once at most, the same ones each time.

    Behind the last one come empty ones, without a token that counts, which fill up the processes'
    batches.

    Args:
        files: a dataset for each file, which holds each document once, in random order.
        samples: how many are wanted; where the files have more, a sample of them is taken.
        seed: decides which.
    """

    def __init__(self, files: Sequence[Samples], samples: int, seed: int) -> None:
        self._files = files
        self._bounds = numpy.cumsum([0, *(len(file) for file in files)])
        self.available = int(self._bounds[-1])
        """Samples that the files have."""
        mixed = len(files) > 1  # each file is in a random order of its own
        order = (
            numpy.random.default_rng(seed).permutation(self.available)
            if mixed
            else numpy.arange(self.available)
        )
        self._chosen = order[:samples]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, sample: int) -> Mapping[str, Tensor]:
        if sample >= len(self):
            first = self[0]
            return {**first, "loss_mask": torch.zeros_like(first["loss_mask"])}
        place = int(self._chosen[sample])
        file = int(numpy.searchsorted(self._bounds, place, side="right")) - 1
        return self._files[file][place - int(self._bounds[file])]
