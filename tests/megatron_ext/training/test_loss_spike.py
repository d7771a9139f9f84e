import math

from megatron_ext.training.loss_spike import LossGuard


def test_sees_spikes_only():
    guard = LossGuard(threshold=1.5, window=4, recent=[])
    assert guard.spike(100.0) is None  # nothing to compare with yet
    for loss in (3.0, 2.0):
        guard.accept(loss)
    assert guard.spike(3.7) is None
    assert guard.spike(3.8) == 2.5
    assert guard.spike(math.nan) is None and guard.spike(math.inf) is None  # another matter


def test_a_run_that_goes_on_remembers():
    guard = LossGuard(threshold=1.5, window=4, recent=[])
    for loss in (9.0, 2.0, 2.0, 2.0, 2.0):
        guard.accept(loss)
    assert guard.recent == [2.0] * 4
    assert LossGuard(threshold=1.5, window=4, recent=guard.recent).spike(3.1) == 2.0


def test_off():
    guard = LossGuard(threshold=None, window=4, recent=[])
    guard.accept(1.0)
    assert guard.spike(1e9) is None and guard.recent == []
