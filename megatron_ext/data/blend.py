"""A weighted blend of sources; weights may change during a run without repeating a sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from megatron.core.datasets import helpers


def assign(weights: Sequence[float], count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return the source of each of `count` samples, and its index among that source's samples.

    The assignment is Megatron's: each sample comes from the source that is furthest below its
    fraction.
    """
    sources = numpy.zeros(count, numpy.int16)
    indices = numpy.zeros(count, numpy.int64)
    fractions = numpy.array(weights, numpy.float64)
    fractions /= fractions.sum()
    helpers.build_blending_indices(sources, indices, fractions, len(fractions), count, False)
    return sources, indices


class Blend:
    """Maps each sample of a run to a sample of a source.

    Args:
        phases: per phase its number of samples and the weight of each source; a source without
            weight is not read in it.

    Attributes:
        names: the sources, in the order of their numbers.
        counts: samples that are read from each source.
    """

    def __init__(self, phases: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        names: set[str] = set()
        for _, weights in phases:
            names.update(weights)
        self.names = sorted(names)
        self.counts = dict.fromkeys(self.names, 0)
        sources = []
        indices = []
        for count, weights in phases:
            phase_names = [name for name in self.names if name in weights]
            phase_sources, phase_indices = assign([weights[name] for name in phase_names], count)
            for number, name in enumerate(phase_names):
                is_source = phase_sources == number
                phase_indices[is_source] += self.counts[name]
                self.counts[name] += int(is_source.sum())
            numbers = numpy.array([self.names.index(name) for name in phase_names], numpy.int16)
            sources.append(numbers[phase_sources])
            indices.append(phase_indices)
        self._sources = numpy.concatenate(sources)
        self._indices = numpy.concatenate(indices)

    def __len__(self) -> int:
        return len(self._sources)

    def locate(self, sample: int) -> tuple[str, int]:
        """Return the source of a sample of the run and its index in that source."""
        return self.names[self._sources[sample]], int(self._indices[sample])


class BlendedSamples(torch.utils.data.Dataset):
    """The samples of a run, each read from its source.

    Args:
        blend: maps samples to sources.
        sources: a dataset for each of the blend's names, of at least `blend.counts` samples.
    """

    def __init__(self, blend: Blend, sources: Mapping[str, Any]) -> None:
        self.blend = blend
        self.sources = sources

    @property
    def per_pass(self) -> int:
        """Samples of one pass over all sources."""
        return sum(dataset.per_pass for dataset in self.sources.values())

    def __len__(self) -> int:
        return len(self.blend)

    def __getitem__(self, sample: int) -> dict[str, torch.Tensor]:
        name, index = self.blend.locate(sample)
        return self.sources[name][index]
