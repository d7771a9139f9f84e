"""Keys and values in buffers with room for further tokens.

A `DynamicCache` of transformers copies all keys and values in each step of generation.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 128
"""Positions that a buffer grows by when it is full."""


class GrowingLayer(DynamicLayer):
    """The same as `DynamicLayer`, for inference only: new keys and values overwrite free room."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.__dict__.update(layer.__dict__)
        self.keys: Tensor = layer.keys
        self.values: Tensor = layer.values
        self._key_buffer = self.keys
        self._value_buffer = self.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, each (rows, heads, new positions, size); return all of them."""
        self.keys, self._key_buffer = _appended(self.keys, self._key_buffer, key_states)
        self.values, self._value_buffer = _appended(self.values, self._value_buffer, value_states)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only some rows."""
        super().batch_select_indices(indices)
        self._key_buffer = self.keys
        self._value_buffer = self.values


def with_room(cache: Any) -> None:
    """Let the layers of a cache grow without copies; layers of other kinds remain as they are."""
    layers = getattr(cache, "layers", [])
    for index, layer in enumerate(layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            layers[index] = GrowingLayer(layer)


def _appended(states: Tensor, buffer: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Return states with new ones after them, as a view of a buffer, and this buffer.

    Args:
        states: the first positions of the buffer; (rows, heads, positions, size).
        buffer: (rows, heads, at least as many positions, size).
        new: (rows, heads, new positions, size).
    """
    start = states.shape[-2]
    end = start + new.shape[-2]
    if end > buffer.shape[-2]:
        rows, heads, _, size = states.shape
        buffer = torch.empty((rows, heads, end + _ROOM, size), dtype=new.dtype, device=new.device)
        buffer[:, :, :start] = states
    buffer[:, :, start:end] = new
    return buffer[:, :, :end], buffer
