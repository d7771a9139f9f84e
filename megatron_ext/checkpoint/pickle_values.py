"""Validates the values of a pickle and turns them into values to work with.

They must have exact types, no cycles, and no more content than the pickle has room for.
"""

import io
import pickle
from argparse import Namespace
from collections.abc import Iterable
from datetime import timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy
import torch

from galen.errors import DataError
from megatron_ext.checkpoint.pickle_stand_ins import Inert, Known
from megatron_ext.checkpoint.stored_tensor import StoredTensor

_LEAVES = {
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    bool,
    type(None),
    StoredTensor,
    numpy.ndarray,
    torch.dtype,
    torch.layout,
}
_TEXTS = {str, bytes, bytearray}
_LEAVES |= {timedelta, PurePosixPath, Known, torch.Tensor}
_MAX_VALUES = 2_000_000
"""Maximum number of values, counted as often as they are reached.

One list in a thousand lists counts a thousand times; 64 letters of a text count as one.
"""
_MAX_TENSOR_BYTES = 2**29
"""Maximum bytes of the tensors among plain values, such as random states.

Weights are read in slices.
"""
_MAX_DEPTH = 100
_CLASSES = {"torch.optim.adamw.AdamW": torch.optim.AdamW, "torch.optim.adam.Adam": torch.optim.Adam}


def shown(value: Any) -> Any:
    """Return a printable value: a number or short text itself, else its type.

    Printing a list may never end.
    """
    if type(value) is str:
        return "".join(letter if letter.isprintable() else "?" for letter in value[:100])
    return (
        value if value is None or type(value) in (int, float, bool) else f"a {type(value).__name__}"
    )


def _children(value: Any) -> Iterable[Any] | None:
    """Return the parts of a value; None for a value that no checkpoint has."""
    type_ = type(value)
    if type_ in (list, tuple, set, frozenset):
        return value
    if type_ is dict:
        return value.values()
    if type_ in (Namespace, SimpleNamespace):
        return vars(value).values()
    return (*value.arguments, value.state) if type_ is Inert else None


def check(root: Any, source: object) -> Any:
    """Return the value of a pickle if it can be traversed in bounded time.

    Raises:
        DataError: it contains itself, a value that no checkpoint has, or too many.
    """
    sizes: dict[int, int] = {}
    path: list[tuple[Any, list[Any], int]] = []
    waiting = [root]
    total = 0
    while True:
        while waiting:
            value = waiting.pop()
            total += sizes.get(id(value), 1)
            if type(value) in _TEXTS:
                total += len(value) // 64
            if type(value) in _LEAVES or id(value) in sizes:
                continue
            children = _children(value)
            if children is None:
                raise DataError(
                    f"{source} is damaged, or not a checkpoint's: it holds a {type(value).__name__}"
                )
            if len(path) >= _MAX_DEPTH:
                raise DataError(
                    f"{source} is damaged, or not a checkpoint's: values are nested more"
                    f" than {_MAX_DEPTH} deep"
                )
            path.append((value, waiting, total))
            waiting = list(children)
            total = 1
        if total > _MAX_VALUES:
            raise DataError(
                f"{source} is damaged, or not a checkpoint's: it refers to more than"
                f" {_MAX_VALUES:,} values"
            )
        if not path:
            return root
        value, waiting, before = path.pop()
        sizes[id(value)] = total
        total = before - 1 + total


def real(root: Any, source: object, inert: bool = False) -> Any:
    """Return checked values with their tensors read.

    With `inert`, stand-ins for a training program's objects remain in them.

    Raises:
        DataError: it contains one although `inert` is false, or the file ends before a tensor.
    """
    return _Conversion(source, inert).convert(root)


class _Conversion:
    """Converts checked values to plain ones; each once, however often it is referred to."""

    def __init__(self, source: object, inert: bool) -> None:
        self._source = source
        self._inert = inert
        self._made: dict[int, Any] = {}
        self._tensor_bytes = 0

    def convert(self, value: Any) -> Any:
        """Return a value with all that it holds."""
        if id(value) in self._made:
            return self._made[id(value)]
        converted = self._convert(value)
        if type(value) not in (str, int, float, bool):
            self._made[id(value)] = converted
        return converted

    def _convert(self, value: Any) -> Any:
        cls = type(value)
        if cls is StoredTensor:
            return self._tensor(value)
        if cls in (list, tuple, set, frozenset):
            return cls(map(self.convert, value))
        if cls is dict:
            return {key: self.convert(item) for key, item in value.items()}
        if cls in (Namespace, SimpleNamespace):
            return cls(**{key: self.convert(item) for key, item in vars(value).items()})
        if cls is Known and value.name in _CLASSES:
            return _CLASSES[value.name]
        if cls in (Known, Inert) and not self._inert:
            raise DataError(
                f"{self._source} is damaged, or not a checkpoint's: it holds {value!r} among plain"
                " values"
            )
        return value

    def _tensor(self, stored: StoredTensor) -> Any:
        self._tensor_bytes += stored.nbytes
        if self._tensor_bytes > _MAX_TENSOR_BYTES:
            raise DataError(
                f"{self._source} is damaged, or not a checkpoint's: more than"
                f" {_MAX_TENSOR_BYTES:,} bytes of tensors among plain values"
            )
        return stored.read()


def packed(root: Any, source: object) -> io.BytesIO:
    """Return checked values as torch.save writes them: a pickle of ours, for code that needs one.

    Raises:
        DataError: one of them is not plain.
    """
    file = io.BytesIO()
    torch.save(real(root, source), file, pickle_protocol=pickle.DEFAULT_PROTOCOL)
    file.seek(0)
    return file
