import pytest
from megatron.core import num_microbatches_calculator

from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.sections import Training


def schedule(ramp, size=32):
    return BatchSchedule(Training(train_iters=100, global_batch_size=size, rampup_batch_size=ramp))


def test_a_constant_batch():
    assert schedule(None).size(0) == schedule(None).size(10**9) == 32
    assert schedule(None).sizes == [32]
    assert schedule(None).samples_after(7) == 224


@pytest.mark.parametrize("ramp", [(8, 8, 100), (4, 4, 1000), (16, 16, 1), (8, 4, 333)])
def test_the_ramp_up_is_megatrons(ramp):
    """Megatron's own calculator, where this version still has one that ramps."""
    ours, consumed, total = schedule(ramp), 0, 0
    if not hasattr(num_microbatches_calculator, "RampupBatchsizeNumMicroBatchesCalculator"):
        pytest.skip("this megatron-core has none")
    core = num_microbatches_calculator.RampupBatchsizeNumMicroBatchesCalculator(
        32, 1, 1, 0, False, *ramp
    )
    for steps in range(120):
        assert ours.samples_after(steps) == total
        core.update(consumed, consistency_check=False)
        assert ours.size(consumed) == core.get_current_global_batch_size(), consumed
        consumed += ours.size(consumed)
        total = consumed
    assert ours.size(consumed) == 32
    assert {ours.size(n) for n in range(2000)} <= set(ours.sizes)
