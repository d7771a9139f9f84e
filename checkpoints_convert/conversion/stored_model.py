"""The tensors of another program's torch_dist checkpoint, as a source of rows.

They have a family's Hugging Face names.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from checkpoints_convert.conversion.weight_tasks import WeightConversionTask
from checkpoints_convert.families.mappings import hf_shapes
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.config.architecture import Architecture


class StoredModel:
    """A model in a torch_dist folder, read like a folder of safetensors, some rows at a time.

    Rows of a Hugging Face tensor are rows of a Megatron tensor, by the family's mapping; nothing is
    computed.
    """

    def __init__(
        self, stored: TorchDist, tasks: Iterable[WeightConversionTask], architecture: Architecture
    ) -> None:
        self._stored = stored
        self._architecture = architecture
        self._tensors = {
            name: (task, number) for task in tasks for number, name in enumerate(task.hf)
        }

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor's first part and the offset of its first byte.

        Raises:
            KeyError: the name is unknown.
        """
        task, _ = self._tensors[name]
        return self._stored.location(task.megatron, task.index)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor; KeyError for an unknown name."""
        task, number = self._tensors[name]
        return hf_shapes(task.mapping, self._architecture)[number]

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor; KeyError for an unknown name."""
        task, _ = self._tensors[name]
        return self._stored.dtype(task.megatron, task.index)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on, in the precision of `target`.

        Raises:
            DataError: the checkpoint lacks some of them.
        """
        task, number = self._tensors[name]
        stop = start + len(target)
        row = 0  # the run's first in the Megatron tensor
        for run in task.mapping.rows(self._architecture):
            first = max(start, run.start)
            last = min(stop, run.stop)
            if run.tensor == number and first < last:
                self._stored.read_into(
                    target[first - start : last - start],
                    task.megatron,
                    task.index,
                    row + first - run.start,
                )
            row += run.stop - run.start
