"""A tensor in a file, of which any rows can be read without the rest."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The location of a tensor's bytes."""

    path: Path
    offset: int
    """First byte in the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    """In elements, as PyTorch's; None for contiguous."""
    data: bytes | None = None
    """The bytes, if they are in memory instead of a file."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> Tensor:
        """Read the rows from `start` until before `stop` along the first axis.

        Raises:
            DataError: the file ends before them.
        """
        target = torch.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        self.read_into(target, start)
        return target

    def read_into(self, target: Tensor, start: int) -> None:
        """Fill the contiguous `target` with the rows from `start` on, in its own precision.

        Raises:
            DataError: the file ends before them.
        """
        if self.stride is not None and self.stride != contiguous(self.shape):
            target.copy_(self._strided()[start : start + len(target)])
        elif target.dtype != self.dtype:
            target.copy_(self.rows(start, start + len(target)))
        else:
            self._read(
                target, self.offset + start * math.prod(self.shape[1:]) * self.dtype.itemsize
            )

    def at(self, leading: tuple[int, ...]) -> "StoredTensor":
        """Return the part of a tensor at these indices along its leading axes."""
        if not leading:
            return self
        axes = len(leading)
        stride = self.stride or contiguous(self.shape)
        begin = sum(at * step for at, step in zip(leading, stride, strict=False))
        return replace(
            self,
            offset=self.offset + begin * self.dtype.itemsize,
            shape=self.shape[axes:],
            stride=None if self.stride is None else self.stride[axes:],
        )

    def read(self) -> Tensor:
        """Read the entire tensor."""
        return self.rows(0, self.shape[0]) if self.shape else self._strided()

    def _strided(self) -> Tensor:
        """Read an entire tensor whose rows are not contiguous."""
        stride = self.stride or contiguous(self.shape)
        span = 1 + sum((size - 1) * step for size, step in zip(self.shape, stride, strict=True))
        flat = torch.empty(span, dtype=self.dtype)
        self._read(flat, self.offset)
        return flat.as_strided(self.shape, stride).contiguous()

    def _read(self, target: Tensor, offset: int) -> None:
        if target.numel() == 0:
            return
        view = target.view(-1).view(torch.uint8).numpy().data
        if self.data is not None:
            view[:] = self.data[offset : offset + len(view)]
            return
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            done = 0
            while done < len(view):
                count = file.readinto(view[done : done + 2**26])
                if not count:
                    raise DataError(
                        f"{self.path} is damaged: it ends {len(view) - done} bytes before the end"
                        " of a tensor"
                    )
                done += count


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor of this shape that is contiguous."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
