"""Conversion of single tensors that are held in memory, by the code that converts files."""

import torch

from checkpoints_convert import units


class Tensors(dict):
    """Hugging Face tensors by name, as a source of rows."""

    def shape(self, name):
        return tuple(self[name].shape)

    def dtype(self, name):
        return self[name].dtype

    def read_into(self, target, name, start):
        target.copy_(self[name][start : start + len(target)])


def to_megatron(unit, tensors, architecture):
    """Return the Megatron tensor that a unit's Hugging Face tensors make."""
    source = Tensors(zip(unit.hf, tensors, strict=True))
    parts = units.pieces(unit, architecture, torch.float32)
    return torch.cat([units.megatron_rows(unit, runs, source, torch.float32, bytearray()) for _, runs in parts])


def to_hf(unit, tensor, architecture):
    """Return the unit's Hugging Face tensors, one after the other, that a Megatron tensor holds."""
    return [tensor[start:stop] for runs in units.hf_pieces(unit, architecture, torch.float32) for start, stop in runs]
