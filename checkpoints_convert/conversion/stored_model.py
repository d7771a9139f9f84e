"""The tensors of another program's torch_dist checkpoint, as a source of rows.

They have a family's Hugging Face names.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from checkpoints_convert.conversion.tensor_units import Unit
from checkpoints_convert.families.mappings import hf_shapes
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import Architecture


class StoredModel:
    """A model in a torch_dist folder, read like a folder of safetensors, some rows at a time.

    Rows of a Hugging Face tensor are rows of a Megatron tensor, by the family's mapping; nothing is
    computed.
    """

    def __init__(
        self, stored: TorchDist, units: Iterable[Unit], architecture: Architecture
    ) -> None:
        self._stored, self._architecture = stored, architecture
        self._places = {
            name: (unit, number) for unit in units for number, name in enumerate(unit.hf)
        }

    def place(self, name: str) -> tuple[str, int]:
        """Return the file that a tensor's first part lies in and its first byte there.

        Raises:
            KeyError: there is none of that name.
        """
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
        unit, number = self._places[name]
        stop = start + len(target)
        place = 0  # of the run's first row in the Megatron tensor
        for run in unit.mapping.rows(self._architecture):
            first, last = max(start, run.start), min(stop, run.stop)
            if run.tensor == number and first < last:
                self._stored.read_into(
                    target[first - start : last - start],
                    unit.megatron,
                    unit.layer,
                    place + first - run.start,
                )
            place += run.stop - run.start
