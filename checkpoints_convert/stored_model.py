"""The tensors of a torch_dist checkpoint under a family's Hugging Face names: what another program saved, as a source of rows."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from checkpoints_convert.family import Family
from checkpoints_convert.mappings import PADDING, hf_shapes
from checkpoints_convert.units import Unit, units
from megatron_ext import checkpoint_folder
from megatron_ext.architecture import Architecture
from megatron_ext.torch_dist import TorchDist


class StoredModel:
    """A model in a torch_dist folder, read like a folder of safetensors, some rows at a time.

    Rows of a Hugging Face tensor are rows of a Megatron tensor, by the family's mapping; nothing is computed.
    """

    def __init__(self, stored: TorchDist, family: Family, architecture: Architecture) -> None:
        self.path: Path = stored.folder
        self.files = [self.path / ".metadata", *checkpoint_folder.weight_files(self.path)]
        self._stored, self._architecture = stored, architecture
        self._places: dict[str, tuple[Unit, int]] = {}
        for unit in (unit for part in units(family, architecture) for unit in part):
            self._places |= {name: (unit, number) for number, name in enumerate(unit.hf)}

    def place(self, name: str) -> tuple[str, int]:
        """Return the file that a tensor's first part lies in and its first byte there; KeyError when there is none of that name."""
        unit, _ = self._places[name]
        return self._stored.place(unit.megatron, unit.layer)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor; KeyError when there is none of that name."""
        unit, number = self._places[name]
        return hf_shapes(unit.mapping, self._architecture)[number]

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor; KeyError when there is none of that name."""
        unit, _ = self._places[name]
        return self._stored.dtype(unit.megatron, unit.layer)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on, in the precision of `target`.

        Raises:
            DataError: the checkpoint lacks some of them.
        """
        unit, _ = self._places[name]
        for first, last, place in self._runs(name, start, start + len(target)):
            part = target[first - start : last - start]
            if part.dtype == self.dtype(name):
                self._stored.read_into(part, unit.megatron, unit.layer, place)
            else:
                part.copy_(self._stored.rows(unit.megatron, unit.layer, place, place + last - first))

    def _runs(self, name: str, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the first and last row of each part of the wanted rows that lies together, and its place in the Megatron tensor."""
        unit, number = self._places[name]
        place = 0
        for run in unit.mapping.rows(self._architecture):
            if run.tensor == number and run.tensor != PADDING:
                first, last = max(start, run.start), min(stop, run.stop)
                if first < last:
                    yield first, last, place + first - run.start
            place += run.stop - run.start
