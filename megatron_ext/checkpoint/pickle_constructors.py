"""Checked constructors for the names that a checkpoint's pickle may call.

Each checks the arguments and raises a ValueError that describes the wrong ones. None calls code of
the file.
"""

import math
from argparse import Namespace
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy
import torch

from megatron_ext.checkpoint.pickle_stand_ins import Array, DType, Known

_NUMBER_CODES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
"""NumPy's codes of numbers; no objects, no records, no dates."""
_MAX_PATH_LENGTH = 4096


def need(condition: bool, message: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


def _are(values: Any, type_: type) -> bool:
    return type(values) is tuple and all(type(value) is type_ for value in values)


def make_namespace() -> Namespace:
    """Return an empty argparse.Namespace."""
    return Namespace()


def make_simple_namespace() -> SimpleNamespace:
    """Return an empty SimpleNamespace."""
    return SimpleNamespace()


def make_dict(*pairs: Any) -> dict[Any, Any]:
    """Return an empty dict in place of an OrderedDict."""
    need(not pairs, "an OrderedDict with arguments")
    return {}


def make_defaultdict(*factory: Any) -> dict[Any, Any]:
    """Return an empty dict in place of a defaultdict."""
    need(
        len(factory) <= 1 and all(type(maker) is Known or maker is None for maker in factory),
        "a defaultdict with arguments",
    )
    return {}


def container_maker(type_: type) -> Callable[..., Any]:
    """Return the constructor of a list, tuple or bytes from the same content."""

    def make(*arguments: Any) -> Any:
        need(len(arguments) <= 1, f"{type_.__name__} with several arguments")
        allowed = (bytes, bytearray) if type_ in (bytes, bytearray) else (list, tuple)
        need(
            all(type(value) in allowed for value in arguments),
            f"{type_.__name__} of something else",
        )
        return type_(*arguments)

    return make


def make_set(*arguments: Any) -> Any:
    """Return a set of the values in a list."""
    need(len(arguments) == 1 and type(arguments[0]) is list, "a set of something else")
    for value in arguments[0]:
        check_key(value)
    return set(arguments[0])


def number_maker(type_: type) -> Callable[..., Any]:
    """Return the constructor of a number from a number."""

    def make(*arguments: Any) -> Any:
        need(
            len(arguments) <= 1 and all(type(value) in (int, float, bool) for value in arguments),
            f"{type_.__name__} of something else",
        )
        return type_(*arguments)

    return make


def make_complex(*parts: Any) -> complex:
    """Return a complex number."""
    need(
        len(parts) == 2 and all(type(part) in (int, float) for part in parts),
        "complex of something else",
    )
    return complex(*parts)


def make_path(*parts: Any) -> PurePosixPath:
    """Return a path, which is never opened."""
    need(
        _are(parts, str) and len(parts) + sum(map(len, parts)) <= _MAX_PATH_LENGTH,
        "a path of something else, or one too long",
    )
    return PurePosixPath(*parts)


def make_timedelta(*parts: Any) -> timedelta:
    """Return a time span of at most 10**8 days."""
    need(
        _are(parts, int) and len(parts) <= 3 and all(abs(part) < 10**8 for part in parts),
        "a timedelta out of range",
    )
    return timedelta(*parts)


def encode_latin1(*arguments: Any) -> bytes:
    """Return the bytes of a text; protocol 2 stores bytes so."""
    need(
        len(arguments) == 2 and _are(arguments, str) and arguments[1] in ("latin1", "latin-1"),
        "another encoding than latin1",
    )
    try:
        return arguments[0].encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("text that is not latin1") from None


def make_size(*arguments: Any) -> tuple[int, ...]:
    """Return a torch.Size as a tuple."""
    need(len(arguments) <= 1, "a torch.Size with several arguments")
    sizes = tuple(arguments[0]) if arguments and type(arguments[0]) in (tuple, list) else ()
    check_sizes(sizes)
    return sizes


def check_sizes(sizes: Any) -> None:
    """Check that a value is a tuple of at most 32 sizes."""
    need(
        _are(sizes, int) and len(sizes) <= 32 and all(0 <= size < 2**48 for size in sizes),
        "sizes that no tensor has",
    )


def make_layout(*arguments: Any) -> torch.layout:
    """Return torch.strided, the only layout."""
    need(
        arguments == ("torch.strided",) and type(arguments[0]) is str,
        "another layout than torch.strided",
    )
    return torch.strided


def make_device(*arguments: Any) -> str:
    """Return the name of a device."""
    need(
        1 <= len(arguments) <= 2 and type(arguments[0]) is str and _are(arguments[1:], int),
        "a device of something else",
    )
    return ":".join(map(str, arguments))


def make_dtype(*arguments: Any) -> DType:
    """Return a data type of numbers."""
    need(
        len(arguments) in (1, 3)
        and type(arguments[0]) is str
        and arguments[0].lstrip("<|") in _NUMBER_CODES,
        "NumPy's other data types",
    )
    return DType(arguments[0].lstrip("<|"))


def reserve_array(*arguments: Any) -> Array:
    """Return the stand-in for an array whose content follows."""
    known = arguments[0] if len(arguments) == 3 else None
    need(
        type(known) is Known and known.name == "numpy.ndarray" and type(arguments[1]) is tuple,
        "an array of another class",
    )
    return Array()


def set_array(target: Array, state: Any) -> None:
    """Set the content of an array: numbers of a known type, as many bytes as its shape has."""
    need(
        target.value is None and type(state) is tuple and len(state) == 5,
        "an array's content twice, or of another structure",
    )
    _, shape, dtype, fortran, content = state
    target.value = _filled(content, dtype, shape, "F" if fortran is True else "C")


def _filled(content: Any, dtype: Any, shape: Any, order: Any) -> numpy.ndarray:
    need(
        type(dtype) is DType and type(content) in (bytes, bytearray),
        "an array of other things than numbers",
    )
    need(type(order) is str and order in ("C", "F"), "an array in another order")
    check_sizes(shape)
    need(
        len(content) == math.prod(shape) * dtype.numpy.itemsize,
        "an array of another size than its content",
    )
    return (
        numpy.frombuffer(bytes(content), dtype.numpy).reshape(shape, order=order).copy(order=order)
    )


def make_array(*arguments: Any) -> numpy.ndarray:
    """Return an array from its content."""
    need(len(arguments) == 4, "an array's content of another structure")
    return _filled(*arguments)


def check_dtype_state(state: Any) -> None:
    """Check the state that NumPy stores of a data type of numbers: only its byte order."""
    message = "NumPy's other data types"
    need(
        type(state) is tuple
        and len(state) == 8
        and _are(state[1:2], str)
        and state[1] in ("<", "|"),
        message,
    )
    need(all(part is None for part in state[2:5]) and _are(state[:1] + state[5:], int), message)


def make_scalar(*arguments: Any) -> Any:
    """Return the number that an array of one holds."""
    need(len(arguments) == 2, "a number's content of another structure")
    return _filled(arguments[1], arguments[0], (), "C").item()


def check_key(key: Any) -> None:
    """Check that a value may be a key.

    Hashing and comparing keys must take bounded time.
    """
    if not _is_plain(key):
        need(
            type(key) is tuple and len(key) <= 8 and all(map(_is_part, key)),
            "a key that no checkpoint has",
        )


def _is_plain(key: Any) -> bool:
    type_ = type(key)
    return (
        type_ in (str, bool, bytes, float, torch.dtype)
        or key is None
        or (type_ is int and -(2**60) < key < 2**60)
    )


def _is_part(key: Any) -> bool:
    """Return whether a value may be an element of a tuple that is a key.

    Tuples of larger numbers can be made to collide.
    """
    type_ = type(key)
    return (
        type_ in (str, bool, bytes, torch.dtype)
        or key is None
        or (type_ is int and abs(key) < 2**31)
    )
