"""The random states of Python, NumPy and PyTorch as plain values, validated when restored."""

import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy
import torch

from galen.errors import MALFORMED, as_data_error, one_line

_KEYS = 624
"""Of NumPy's generator, a Mersenne Twister; its place among them is taken without a check."""


def get() -> dict[str, Any]:
    """Return the three states."""
    drawn: Any = numpy.random.get_state()
    name, keys, place, has_normal, normal = drawn
    stored = (name, torch.from_numpy(keys.astype(numpy.int64)), place, has_normal, normal)
    return {"python": random.getstate(), "numpy": stored, "torch": torch.get_rng_state()}


def restore(states: dict[str, Any]) -> None:
    """Restore the three states; ValueError, TypeError or RuntimeError for others."""
    random.setstate(states["python"])
    numpy.random.set_state(numpy_state(states["numpy"]))
    torch.set_rng_state(states["torch"])


def numpy_state(state: Any) -> tuple[Any, ...]:
    """Return a stored state of NumPy's generator in the form that NumPy takes.

    Older checkpoints have it as an array of NumPy's.

    Raises:
        ValueError: it is not such a state.
    """
    if type(state) is not tuple or len(state) != 5 or state[0] != "MT19937":
        raise ValueError("no state of NumPy's random numbers")
    keys = state[1].numpy() if type(state[1]) is torch.Tensor else state[1]
    is_array = type(keys) is numpy.ndarray and keys.dtype.kind in "iu" and keys.shape == (_KEYS,)
    if not is_array or type(state[2]) is not int or not 0 <= state[2] <= _KEYS:
        raise ValueError("no state of NumPy's random numbers")
    return ("MT19937", keys.astype(numpy.uint32), *state[2:])


def restoring(folder: str | Path) -> AbstractContextManager[None]:
    """Say in one line that the random states in a checkpoint are none."""
    return as_data_error(
        lambda error: (
            f"the random states in {folder} are damaged: {type(error).__name__}: {one_line(error)}"
        ),
        (*MALFORMED, RuntimeError),
    )
