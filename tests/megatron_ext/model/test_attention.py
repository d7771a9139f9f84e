import functools

import pytest
import torch

from megatron_ext.model.attention import (
    _attend_with_sinks,
    _context_parallel_mask,
    context_parallel_positions,
)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_mask_of_a_context_parallel_process(rank, window):
    """Rows are the process's own positions, columns those of all processes in rank order."""
    bounds = torch.tensor([0, 8])
    positions = [context_parallel_positions(bounds, other, 2) for other in range(2)]
    mask = _context_parallel_mask(4, rank, 2, window, torch.device("cpu"))
    for row, query in enumerate(positions[rank].tolist()):
        for column, key in enumerate(torch.cat(positions).tolist()):
            expected = key <= query and (window is None or query - key < window)
            assert mask[row, column] == expected


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sinks_take_part_in_the_softmax_and_get_its_gradient(window, dtype):
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()

    query, key, value = random(2, 4, 7, 16), random(2, 2, 7, 16), random(2, 2, 7, 16)
    sinks, weights = random(4), random(2, 4, 7, 16)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    if window is not None:
        mask = mask.triu(1 - window)
    keys = key.repeat_interleave(2, 1)
    scores = (query @ keys.mT / 4).masked_fill(~mask, float("-inf"))
    logits = torch.cat([scores, sinks.view(1, 4, 1, 1).expand(2, 4, 7, 1)], -1)
    expected = logits.softmax(-1)[..., :-1] @ value.repeat_interleave(2, 1)
    inputs = (query, key, value, sinks)
    gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    cast = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    attend = functools.partial(
        torch.nn.functional.scaled_dot_product_attention, scale=0.25, enable_gqa=True
    )
    actual = _attend_with_sinks(attend, *cast[:3], mask if window else None, cast[3])
    tolerance = {"atol": 1e-5 if dtype == torch.float32 else 0.2, "rtol": 0}
    torch.testing.assert_close(actual.double(), expected, **tolerance)
    for gradient, tensor in zip(
        gradients, torch.autograd.grad((actual * weights).sum(), cast), strict=True
    ):
        torch.testing.assert_close(tensor.double(), gradient, **tolerance)
