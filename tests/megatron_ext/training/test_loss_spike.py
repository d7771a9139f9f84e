import math

from megatron_ext.training.loss_spike import LossSpikeDetector


def test_only_spikes_are_detected():
    detector = LossSpikeDetector(threshold=1.5, window=4, recent=[])
    assert not detector.is_spike(100.0)  # nothing to compare with yet
    for loss in (3.0, 2.0):
        detector.update(loss)
    assert not detector.is_spike(3.7)
    assert detector.is_spike(3.8) and detector.median == 2.5
    assert not detector.is_spike(math.nan) and not detector.is_spike(math.inf)  # handled elsewhere


def test_a_resumed_run_keeps_its_window():
    detector = LossSpikeDetector(threshold=1.5, window=4, recent=[])
    for loss in (9.0, 2.0, 2.0, 2.0, 2.0):
        detector.update(loss)
    assert detector.recent == [2.0] * 4
    resumed = LossSpikeDetector(threshold=1.5, window=4, recent=detector.recent)
    assert resumed.is_spike(3.1) and resumed.median == 2.0


def test_disabled():
    detector = LossSpikeDetector(threshold=None, window=4, recent=[])
    detector.update(1.0)
    assert not detector.is_spike(1e9) and detector.recent == []
