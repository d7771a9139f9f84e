"""Conversion of single tensors that are held in memory, by the code that converts files."""

import torch

from checkpoints_convert.conversion.stored_model import StoredModel
from checkpoints_convert.conversion.weight_tasks import hf_slices, megatron_slices
from checkpoints_convert.resumable_io.prefetch import Prefetcher


class Tensors(dict):
    """Hugging Face tensors by name, as a source of rows."""

    def read_into(self, target, name, start):
        target.copy_(torch.atleast_1d(self[name])[start : start + len(target)])


class Stored:
    """A Megatron tensor of a task, instead of a checkpoint folder."""

    def __init__(self, tensor):
        self.tensor = tensor

    def read_into(self, target, name, layer, start):
        target.copy_(self.tensor[start : start + len(target)])


def joined(slices):
    with Prefetcher() as reader:
        return torch.cat([rows.clone() for rows in reader.read(slices)])


def to_megatron(task, tensors, architecture):
    """Return the Megatron tensor that a task's Hugging Face tensors make, padded for one rank."""
    source = Tensors(zip(task.hf, tensors, strict=True))
    return joined(
        slice_ for _, slice_ in megatron_slices(task, architecture, source, torch.float32, 1)
    )


def to_hf(task, tensor, architecture):
    """Return the task's Hugging Face tensors that a Megatron tensor holds."""
    source = StoredModel(Stored(tensor), [task], architecture)
    return [joined(hf_slices(name, source, torch.float32)) for name in task.hf]
