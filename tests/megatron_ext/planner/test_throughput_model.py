"""The planner's speed compared with published figures.

It uses its own constants, and constants fitted to the other figures.
"""

import pytest

from benchmarks.planner_fit import BEFORE, fit, published
from galen.recipe import load
from megatron_ext.config.recipe import Recipe
from megatron_ext.planner.gpus import GPUS
from megatron_ext.planner.throughput_model import EFFICIENCIES, step_time
from tests.megatron_ext.config.test_recipe import SHAPE, TEXT

FIGURES = published()


@pytest.mark.parametrize("name", FIGURES)
def test_published_figures(name):
    assert abs(FIGURES[name].error(EFFICIENCIES)) < 0.05


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_that_the_constants_were_not_fitted_to(name):
    efficiencies = fit([one for other, one in FIGURES.items() if other != name])
    assert abs(FIGURES[name].error(efficiencies)) < 0.12


def test_with_constants_written_down_before():
    assert all(abs(one.error(BEFORE)) < 0.12 for one in FIGURES.values())


def test_meditron_70b_on_a100():
    """332 hours on 128 A100-80GB, in a layout that fits."""
    estimate = FIGURES["MEDITRON-70B, bf16, 128 A100"].estimate()
    assert estimate.days * 24 == pytest.approx(332, rel=0.05)
    assert estimate.fits


def test_block_recompute_adds_a_forward_pass_of_its_layers(tmp_path):
    """Two of thirty layers recomputed, all of them, none."""
    (tmp_path / "r.yaml").write_text(TEXT)
    full = "training.recompute_granularity=full"
    block = ["training.recompute_method=block", "training.recompute_num_layers=2"]
    without, two, all_layers = (
        step_time(SHAPE, load(Recipe, tmp_path / "r.yaml", overrides), 1, GPUS["h100-80gb"])
        for overrides in ([], [full, *block], [full])
    )
    assert two.attention == pytest.approx(without.attention * (1 + 2 / 30 / 3))
    assert all_layers.attention == pytest.approx(without.attention * 4 / 3)
