"""The planner's memory beside what two processes really allocate under several layouts."""

import dataclasses
import json

import pytest

from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.rope import Yarn
from megatron_ext.planner.memory_model import layer_activations
from tests.megatron_ext.config.test_recipe import SHAPE, TEXT

UNBALANCED = 0.045
"""A new router does not balance its experts."""
TOLERANCES = {
    "experts": UNBALANCED,
    "shared expert": UNBALANCED,
    "gpt-oss": UNBALANCED,
    # with one key head on a rank, its norm keeps a view
    "olmo": 0.025,
}
"""Of activations, by shape."""


@pytest.fixture(scope="module")
def measurements(start_forked):
    codes, written = start_forked(2, module="tests.megatron_ext.measure_memory").wait()
    assert codes == [0, 0], written[-3000:]
    layouts = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert len(layouts) == 68  # 34 layouts, two ranks
    return layouts


@pytest.mark.multiprocess
def test_weights_gradients_and_optimizer_are_exact(measurements):
    for one in measurements:
        for name in ("parameters", "weights", "gradients", "optimizer"):
            # Megatron cuts the state among replicas at multiples of 64 weights, of 8 bytes each
            slack = 512 if name == "optimizer" else 0
            assert abs(one["measured"][name] - one["planned"][name]) <= slack, (
                one["layout"],
                one["rank"],
                name,
            )


@pytest.mark.multiprocess
def test_activations(measurements):
    """Autograd's peak memory, for the layouts that the model was made with and for others."""
    for one in measurements:
        ratio = one["measured"]["activations"] / one["planned"]["activations"]
        tolerance = 0.02 if one["held_out"] else 0.002
        tolerance = TOLERANCES.get(one["layout"].split(",")[0], tolerance)
        assert ratio == pytest.approx(1, abs=tolerance), (one["layout"], one["rank"])


@pytest.mark.parametrize(("fused", "fraction"), [(True, 0.5), (False, 1.0)])
def test_a_fused_norm_is_recomputed_with_the_mlp(tmp_path, fused, fraction):
    """On a GPU the norm before the MLP is a part of its first linear layer."""
    (tmp_path / "r.yaml").write_text(TEXT)
    recompute = ["training.recompute_granularity=selective", "training.recompute_modules=[mlp]"]
    without, with_recompute = (
        layer_activations(SHAPE, load(Recipe, tmp_path / "r.yaml", overrides), fused)
        for overrides in ([], recompute)
    )
    assert with_recompute["norm outputs"] == fraction * without["norm outputs"]
    assert with_recompute["MLP product"] == 0


def test_the_attention_factor_of_yarn_keeps_rotary_factors(tmp_path):
    """Transformer Engine's fused kernel keeps none, but does not know the attention factor."""
    (tmp_path / "r.yaml").write_text(TEXT)
    run = load(Recipe, tmp_path / "r.yaml", [])
    scaled, unscaled = (
        dataclasses.replace(
            SHAPE,
            yarn=Yarn(factor=8.0, original_max_position_embeddings=8192, attention_factor=factor),
        )
        for factor in (None, 1.0)
    )
    fused = layer_activations(SHAPE, run)
    assert layer_activations(unscaled, run) == fused
    more = layer_activations(scaled, run)
    # cosine and sine in bf16, for queries and keys
    rotary = 4 * 2 * run.data.seq_length * SHAPE.kv_channels
    assert more == fused | {"rotary factors": rotary}
