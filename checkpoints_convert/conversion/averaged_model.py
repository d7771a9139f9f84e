"""The weighted mean of several checkpoints of one model, as a source of rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from checkpoints_convert.conversion.stored_model import StoredModel


@dataclass(frozen=True)
class AveragedModel:
    """Models with the same tensors, read as one: the mean in float64, rounded once at the end."""

    models: Sequence[StoredModel]
    weights: Sequence[float]
    """Of each model; divided by their sum."""

    def location(self, name: str) -> tuple[str, int]:
        """Return the file and offset of a tensor in the first model."""
        return self.models[0].location(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor."""
        return self.models[0].shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor in the first model."""
        return self.models[0].dtype(name)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the mean of the rows from `start` on.

        Raises:
            DataError: a checkpoint lacks some of them.
        """
        total = torch.zeros(target.shape, dtype=torch.float64)
        for model, weight in zip(self.models, self.weights, strict=True):
            rows = torch.empty(target.shape, dtype=model.dtype(name))
            model.read_into(rows, name, start)
            # not add_(rows, alpha=weight), whose rounding depends on the processor
            total.add_(rows.double().mul_(weight))
        target.copy_(total.div_(sum(self.weights)))


def ema(count: int, decay: float) -> list[float]:
    """Return the weights of an exponential moving average over `count` checkpoints, oldest first.

    It begins with the first: m_1 = w_1, m_i = decay x m_(i-1) + (1 - decay) x w_i.
    """
    weights = [1.0]
    for _ in range(count - 1):
        weights = [decay * weight for weight in weights]
        weights.append(1 - decay)
    return weights
