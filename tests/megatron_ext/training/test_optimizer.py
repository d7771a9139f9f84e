"""The optimizer step after gradients whose norm is already known."""

from types import SimpleNamespace

import pytest
import torch

from megatron_ext.hardware import platforms
from megatron_ext.training.optimizer import prepare_grads, update


@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
def test_gradients_are_prepared_and_measured_once():
    platforms.current_platform()
    weight = torch.zeros(2)
    weight.grad = torch.tensor([3.0, 4.0])
    calls = []
    optimizer = SimpleNamespace(
        config=SimpleNamespace(clip_grad=1.0, use_precision_aware_optimizer_no_fp8_or_ds_fp8=False),
        get_parameters=lambda: [weight],
        prepare_grads=lambda: calls.append("prepare"),
        get_grad_norm=lambda: calls.append("norm") or weight.grad.norm(),
        step_with_ready_grads=lambda: calls.append(f"step {weight.grad.tolist()}"),
    )
    norm = prepare_grads(optimizer)
    assert norm == 5.0
    update(optimizer, norm)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
    assert calls == ["prepare", "norm", f"step {weight.grad.tolist()}"]
