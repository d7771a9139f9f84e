"""The loss beside PyTorch's own, and its gradient."""

import pytest
import torch

from megatron_ext.model import cross_entropy
from megatron_ext.model.cross_entropy import BlockwiseCrossEntropy


class Alone:
    """A group of one process."""

    def size(self):
        return 1

    def rank(self):
        return 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("true_rows", [300, 320])
def test_loss_and_gradient_are_pytorchs(monkeypatch, dtype, tolerance, true_rows):
    monkeypatch.setattr(cross_entropy, "BLOCK", 320 * 7)  # several blocks, the last one smaller
    torch.manual_seed(0)
    logits = (torch.randn(50, 320) * 5).to(dtype)
    labels, weights = torch.randint(0, true_rows, (50,)), torch.rand(50)
    expected_input = logits.float()[:, :true_rows].requires_grad_()
    expected = torch.nn.functional.cross_entropy(expected_input, labels, reduction="none")
    (expected * weights).sum().backward()

    leaf = logits.clone().requires_grad_()
    actual = BlockwiseCrossEntropy.apply(leaf * 1, labels, true_rows, Alone())
    (actual * weights).sum().backward()
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        leaf.grad.float()[:, :true_rows], expected_input.grad, rtol=tolerance, atol=tolerance / 10
    )
    assert not leaf.grad[:, true_rows:].any()


def test_large_logits_and_one_that_is_not_finite():
    logits = torch.tensor([[1e30, 0.0], [float("nan"), 0.0], [-float("inf"), 0.0]])
    losses = BlockwiseCrossEntropy.apply(logits, torch.tensor([0, 0, 1]), 2, Alone())
    assert losses[0] == 0 and losses[1].isnan() and losses[2] == 0
