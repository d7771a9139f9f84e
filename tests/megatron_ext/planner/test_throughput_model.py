"""The planner's speed compared with published figures.

It uses its own constants, and constants fitted to the other figures.
"""

import pytest

from benchmarks.planner_fit import BEFORE, fit, published
from megatron_ext.planner.throughput_model import EFFICIENCIES

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
