"""Inert values that stand for the objects of a checkpoint's pickle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch


class Inert:
    """A stand-in for an object of a training program: keeps its state, runs none of its code."""

    __slots__ = ("arguments", "known", "state")

    def __init__(self, known: "Known", arguments: tuple[Any, ...]) -> None:
        self.known = known
        self.arguments = arguments
        self.state: Any = None

    def __repr__(self) -> str:
        plain = [
            repr(value)[:100] if type(value) in (int, str) else f"a {type(value).__name__}"
            for value in self.arguments
        ]
        name = self.known.name.rpartition(".")[2]
        return f"{name}({', '.join(plain)}{',' * (len(plain) == 1)})" if plain else name


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """A name that a pickle may hold."""

    name: str
    make: Callable[..., Any] | None = None
    """Makes the value from arguments; None for a name that may only be mentioned.

    Raises ValueError for wrong arguments.
    """
    by_new: bool = False
    """Whether objects of it are made without a call, which pickles do for data classes."""
    state: type | None = None
    """Type of its objects' state; None for no state."""
    members: bool = False
    """Whether it is an enumeration, of which a member may be named."""

    def __repr__(self) -> str:
        return self.name


class Array:
    """A NumPy array or data type in a pickle: a stand-in until its content is known."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: numpy.ndarray | None = None


class DType:
    """A data type of NumPy that an array of a checkpoint may have."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    @property
    def numpy(self) -> numpy.dtype:
        """NumPy's own, made from our list."""
        return numpy.dtype("<" + self.code)


class Storage:
    """The location of a tensor's numbers: in a file, or in `data`."""

    __slots__ = ("count", "data", "dtype", "offset", "path")

    def __init__(
        self, dtype: torch.dtype, count: int, path: Any, offset: int, data: bytes | None = None
    ) -> None:
        self.dtype = dtype
        self.count = count
        self.path = path
        self.offset = offset
        self.data = data


def settled(value: Any) -> Any:
    """Return an array's content instead of its stand-in."""
    return value if type(value) is not Array or value.value is None else value.value
