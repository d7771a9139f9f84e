"""Conversion of single tensors that are held in memory, by the code that converts files."""

import torch

from checkpoints_convert.conversion.stored_model import StoredModel
from checkpoints_convert.conversion.tensor_units import hf_pieces, megatron_pieces
from checkpoints_convert.resumable_io.prefetch import ReadAhead


class Tensors(dict):
    """Hugging Face tensors by name, as a source of rows."""

    def read_into(self, target, name, start):
        target.copy_(self[name][start : start + len(target)])


class Stored:
    """A Megatron tensor of a unit, in the place of a checkpoint folder."""

    def __init__(self, tensor):
        self.tensor = tensor

    def read_into(self, target, name, layer, start):
        target.copy_(self.tensor[start : start + len(target)])


def joined(pieces):
    with ReadAhead() as reader:
        return torch.cat([rows.clone() for rows in reader.read(pieces)])


def to_megatron(unit, tensors, architecture):
    """Return the Megatron tensor that a unit's Hugging Face tensors make, padded for one rank."""
    source = Tensors(zip(unit.hf, tensors, strict=True))
    return joined(
        piece for _, piece in megatron_pieces(unit, architecture, source, torch.float32, 1)
    )


def to_hf(unit, tensor, architecture):
    """Return the unit's Hugging Face tensors that a Megatron tensor holds."""
    source = StoredModel(Stored(tensor), [unit], architecture)
    return [joined(hf_pieces(name, source, torch.float32)) for name in unit.hf]
