"""xIELU against transformers' module."""

from types import SimpleNamespace

import pytest
import torch
from megatron.core import parallel_state
from transformers.activations import ACT2CLS

from megatron_ext.model.activations import Xielu

NAMES = ("alpha_p", "alpha_n", "beta", "eps")


@pytest.fixture(autouse=True)
def one_rank(monkeypatch):
    group = SimpleNamespace(size=lambda: 1)
    monkeypatch.setattr(parallel_state, "get_tensor_model_parallel_group", lambda: group)


def modules(dtype):
    """Return both modules, with learned parameters that no initialization has."""
    actual = Xielu(SimpleNamespace(params_dtype=dtype))
    expected = ACT2CLS["xielu"](dtype=dtype)
    for name in NAMES:
        assert getattr(actual, name).equal(getattr(expected, name).reshape(1))
    with torch.no_grad():
        for module in (actual, expected):
            module.alpha_p.fill_(0.37)
            module.alpha_n.fill_(-1.3)
    return actual, expected


def inputs(dtype):
    tokens = torch.randn(3, 2, 128, generator=torch.Generator().manual_seed(0)) * 3
    tokens[0, 0, :5] = torch.tensor([0.0, 1e-7, -1e-7, -1e-6, -2e-6])  # around eps
    return tokens.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_forward_pass_is_bit_identical(dtype):
    actual, expected = modules(dtype)
    assert actual(inputs(dtype)).equal(expected(inputs(dtype)))


def test_the_gradients_are_those_of_autograd():
    pairs = [(module, inputs(torch.float32)) for module in modules(torch.float32)]
    weights = torch.randn(3, 2, 128, generator=torch.Generator().manual_seed(1))
    for module, tokens in pairs:
        module(tokens).backward(weights)
    (actual, actual_tokens), (expected, expected_tokens) = pairs
    torch.testing.assert_close(actual_tokens.grad, expected_tokens.grad)
    torch.testing.assert_close(actual.alpha_p.grad, expected.alpha_p.grad)
    torch.testing.assert_close(actual.alpha_n.grad, expected.alpha_n.grad)


def test_only_the_input_is_kept_for_the_backward_pass():
    module, _ = modules(torch.bfloat16)
    tokens = inputs(torch.bfloat16)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(tokens)
    assert [size for size in sizes if size > 1] == [tokens.numel()]
