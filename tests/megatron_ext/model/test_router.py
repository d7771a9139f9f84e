"""The router's losses have their coefficients, by an independent computation."""

import dataclasses

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.transformer.moe.moe_layer import get_default_pg_collection

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.moe_section import Moe
from megatron_ext.config.sections import Parallel
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.model.router import BalancedRouter
from megatron_ext.training.expert_statistics import summarize
from tests.megatron_ext.experts import ARCHITECTURE

SEQUENCE = 6
BATCH = 3
COEFFICIENT = 0.3
Z_COEFFICIENT = 0.07
IN_LOSS = 10
"""Tokens in the loss; the others are masked."""


@pytest.fixture
def make_router(group_of_one):
    """Return a router of 4 experts, 2 per token, on one process."""
    platform = platforms.current_platform()
    parallel_groups.initialize(Parallel(), seed=1)

    def make(load_balancing: str, pre_softmax: bool) -> BalancedRouter:
        moe = Moe(
            moe_router_load_balancing_type=load_balancing,
            moe_aux_loss_coeff=COEFFICIENT,
            moe_z_loss_coeff=Z_COEFFICIENT,
        )
        config = Architecture(
            **ARCHITECTURE, moe_router_pre_softmax=pre_softmax
        ).transformer_config(
            calculate_per_token_loss=True,
            use_cpu_initialization=True,
            **platform.expert_options,
            **dataclasses.asdict(moe),
        )
        router = BalancedRouter(config=config, pg_collection=get_default_pg_collection())
        router.weight.data.normal_(generator=torch.Generator().manual_seed(1))
        router.set_layer_number(1)
        return router

    yield make
    BalancedRouter.loss_fraction = 1.0
    BalancedRouter.packed_length = None
    parallel_state.destroy_model_parallel()


def expected(router, hidden, mask, load_balancing, pre_softmax):
    """Return the objective per token, the auxiliary loss and the z-loss."""
    logits = hidden @ router.weight.T
    scores = logits.softmax(-1)
    chosen = logits.topk(2).indices
    weights = scores.gather(-1, chosen)
    if not pre_softmax:
        weights = weights / weights.sum(-1, keepdim=True)
    main = (weights * mask.unsqueeze(-1)).square().sum() / IN_LOSS
    counts = torch.zeros_like(logits).scatter(-1, chosen, 1.0)
    axes = (0,) if load_balancing == "seq_aux_loss" else (0, 1)
    fractions = counts.mean(axes) / 2
    auxiliary = (4 * (fractions * scores.mean(axes)).sum(-1)).mean()
    z_loss = logits.logsumexp(-1).square().mean()
    total = main + COEFFICIENT * auxiliary + Z_COEFFICIENT * z_loss
    return total, auxiliary, z_loss, counts.sum((0, 1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
@pytest.mark.parametrize("load_balancing", ["seq_aux_loss", "aux_loss", "global_aux_loss"])
@pytest.mark.parametrize("pre_softmax", [True, False])
def test_losses_have_their_coefficients(make_router, load_balancing, pre_softmax):
    router = make_router(load_balancing, pre_softmax)
    hidden = torch.randn(SEQUENCE, BATCH, 32, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(SEQUENCE * BATCH)
    mask[IN_LOSS:] = 0
    mask = mask.view(SEQUENCE, BATCH)
    values = expected(router, hidden, mask, load_balancing, pre_softmax)
    objective, auxiliary, z_loss, counts = values
    [gradient] = torch.autograd.grad(objective, [router.weight])

    BalancedRouter.loss_fraction = IN_LOSS / mask.numel()
    probabilities, _ = router(hidden)
    weighted = probabilities.view(SEQUENCE, BATCH, 4) * mask.unsqueeze(-1)
    weighted.square().sum().backward()
    # as the core divides the summed gradients
    torch.testing.assert_close(router.weight.grad / IN_LOSS, gradient, rtol=1e-5, atol=1e-7)

    sums = router.take_statistics(torch.device("cpu"))
    assert router.statistics is None
    torch.testing.assert_close(sums[:4], counts.double())
    one_layer = Architecture(**ARCHITECTURE | {"num_layers": 1})
    figures = summarize(sums.unsqueeze(0), one_layer)
    assert figures.aux_loss == pytest.approx(auxiliary.item(), rel=1e-5)
    assert figures.z_loss == pytest.approx(z_loss.item(), rel=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the platform is CUDA")
def test_packed_sequences_have_the_losses_of_separate_ones(make_router):
    hidden = torch.randn(SEQUENCE, BATCH, 32, generator=torch.Generator().manual_seed(2))
    gradients = []
    for packed in (False, True):
        router = make_router("seq_aux_loss", pre_softmax=False)
        BalancedRouter.packed_length = SEQUENCE if packed else None
        rows = hidden.transpose(0, 1).reshape(SEQUENCE * BATCH, 1, 32) if packed else hidden
        probabilities, _ = router(rows)
        probabilities.square().sum().backward()
        gradients.append((router.weight.grad, router.take_statistics(hidden.device)))
    for separate, together in zip(*gradients, strict=True):
        torch.testing.assert_close(together, separate.to(together.dtype), rtol=1e-5, atol=1e-5)


def test_figures_of_the_load():
    architecture = Architecture(**ARCHITECTURE | {"num_layers": 2})
    sums = torch.tensor([[4.0, 4, 4, 4, 8, 0], [16, 0, 0, 0, 24, 0]], dtype=torch.float64)
    figures = summarize(sums, architecture).figures()
    assert figures == {
        "load_balancing_loss": 2.0,  # 8 and 24 over 8 tokens of two experts each
        "expert_load_max": 4.0,
        "expert_load_min": 0.0,
        "unused_experts": 3 / 8,
        "expert_load_max_by_layer": [1.0, 4.0],
    }
