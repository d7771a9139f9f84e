"""The way of a micro-batch to the device."""

from contextlib import suppress
from types import SimpleNamespace

import torch

from megatron_ext.training import train_step


def test_a_batch_is_sliced_on_the_device(monkeypatch):
    """A slice on the CPU would leave pinned memory, so that its copy would wait for the device."""
    devices = []

    def slice_(batch, _bounds):
        devices.extend(tensor.device.type for tensor in batch.values())
        raise StopIteration

    monkeypatch.setattr(train_step, "context_parallel_slice", slice_)
    step = SimpleNamespace(platform=SimpleNamespace(device=torch.device("meta")), packed=False)
    batch = {"tokens": torch.zeros(1, 4), "labels": torch.zeros(1, 4)}
    with suppress(StopIteration):
        train_step.TrainStep._forward_step(step, iter([batch]), None)
    assert devices == ["meta", "meta"]
