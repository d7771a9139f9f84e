"""A weighted blend of sources; weights may change during a run without repeating a sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from megatron.core.datasets import helpers


def assign(weights: Sequence[float], count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the source of each of `count` samples, and its index among that source's samples.

    The assignment is Megatron's: at every sample the source that is furthest behind its share is
    taken.
    """
    sources, numbers = numpy.zeros(count, numpy.int16), numpy.zeros(count, numpy.int64)
    shares = numpy.array(weights, numpy.float64)
    helpers.build_blending_indices(
        sources, numbers, shares / shares.sum(), len(shares), count, False
    )
    return sources, numbers


class Blend:
    """Which sample of which source each sample of a run is.

    Args:
        phases: per phase the number of its samples and the weight of each source; a source without
            weight is not read in it.

    Attributes:
        names: the sources, in the order of their numbers.
        counts: samples that are read of each source.
    """

    def __init__(self, phases: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        self.names = sorted({name for _, weights in phases for name in weights})
        self.counts = dict.fromkeys(self.names, 0)
        sources, numbers = [], []
        for count, weights in phases:
            present = [name for name in self.names if name in weights]
            local, number = assign([weights[name] for name in present], count)
            for place, name in enumerate(present):
                taken = local == place
                number[taken] += self.counts[name]
                self.counts[name] += int(taken.sum())
            sources.append(
                numpy.array([self.names.index(name) for name in present], numpy.int16)[local]
            )
            numbers.append(number)
        self._sources, self._numbers = numpy.concatenate(sources), numpy.concatenate(numbers)

    def __len__(self) -> int:
        return len(self._sources)

    def locate(self, sample: int) -> tuple[str, int]:
        """Return the source of a sample of the run and its number there."""
        return self.names[self._sources[sample]], int(self._numbers[sample])


class BlendedSamples(torch.utils.data.Dataset):
    """The samples of a run, each read from its source.

    Args:
        blend: what comes from where.
        sources: a dataset for each of the blend's names, of at least `blend.counts` samples.
    """

    def __init__(self, blend: Blend, sources: Mapping[str, Any]) -> None:
        self.blend, self.sources = blend, sources

    @property
    def per_pass(self) -> int:
        """Samples in which all sources are read once."""
        return sum(dataset.per_pass for dataset in self.sources.values())

    def __len__(self) -> int:
        return len(self.blend)

    def __getitem__(self, sample: int) -> dict[str, torch.Tensor]:
        name, number = self.blend.locate(sample)
        return self.sources[name][number]
