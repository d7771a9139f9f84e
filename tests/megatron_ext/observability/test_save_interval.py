import pytest

from megatron_ext.observability import save_interval


@pytest.mark.parametrize(("stall", "mtbf"), [(1, 1e5), (60, 3600), (300, 1800), (600, 1000)])
def test_the_optimum_costs_the_least(stall, mtbf):
    best = save_interval.optimum(stall, mtbf)
    cost = save_interval.overhead(best, stall, mtbf, restart=120)
    others = [save_interval.overhead(best * factor, stall, mtbf, 120) for factor in (0.8, 1.25)]
    assert 0 < cost < min(others)


def test_young_is_its_limit():
    assert save_interval.optimum(1e-6, 1e6) == pytest.approx((2 * 1e-6 * 1e6) ** 0.5, rel=1e-5)
    assert save_interval.optimum(5000, 2000) == 2000  # saves take longer than the machine lives


def recommend(failures, **changed):
    figures = {"present": 1000, "stall_seconds": 30.0, "step_seconds": 4.0}
    figures |= {"operating_seconds": 5e5, "restart_seconds": 300.0, **changed}
    return save_interval.recommend(failures=failures, **figures)


def test_few_failures_give_a_bound():
    assert [recommend(number).is_lower_bound for number in range(5)] == [True] * 3 + [False] * 2
    bounds = [recommend(number).mtbf_seconds for number in range(4)]
    assert bounds[:3] == pytest.approx([5e5 / 2.996, 5e5 / 4.744, 5e5 / 6.296])
    assert bounds[3] == pytest.approx(5e5 / 3)
    found = recommend(5)
    assert found.recommended == pytest.approx((2 * 30 * 1e5) ** 0.5 / 4, rel=0.02)
    assert found.recommended_overhead < found.present_overhead < 0.1


def test_unmeasured_figures_give_no_recommendation():
    assert recommend(3, stall_seconds=0.0) is None
    assert recommend(3, step_seconds=0.0) is None
    assert recommend(3, operating_seconds=0.0) is None


def test_an_interval_far_beyond_the_failures():
    assert recommend(100, present=10**9).present_overhead == 1.0
