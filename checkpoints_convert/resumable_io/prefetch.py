"""Reads the slices of a conversion, each while the one before it is being written."""

import math
import mmap
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import torch
from torch import Tensor


class TensorSlice(NamedTuple):
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    fill: Callable[[Tensor], None]
    """Reads it into an empty tensor of this shape and precision."""


class Prefetcher:
    """A thread that reads into two reused buffers.

    Memory allocated for each slice would be fragmented and grow with the model.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "read")
        self._buffers = [mmap.mmap(-1, 1), mmap.mmap(-1, 1)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def read(self, slices: Iterable[TensorSlice]) -> Iterator[Tensor]:
        """Yield the slices, read one ahead; a tensor is overwritten once the next is requested."""
        ahead: Future[Tensor] | None = None
        for slice_ in slices:
            current, ahead = ahead, self._thread.submit(self._read, slice_)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()

    def _read(self, slice_: TensorSlice) -> Tensor:
        numbers = math.prod(slice_.shape)
        if len(self._buffers[0]) < numbers * slice_.dtype.itemsize:
            self._buffers[0] = mmap.mmap(-1, numbers * slice_.dtype.itemsize)
        tensor = torch.frombuffer(self._buffers[0], dtype=slice_.dtype, count=numbers).view(
            slice_.shape
        )
        self._buffers.reverse()
        slice_.fill(tensor)
        return tensor
