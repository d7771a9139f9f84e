import collections

import pytest

from megatron_ext.data.blend import Blend, BlendedSamples


def test_fractions_hold_at_every_sample():
    blend = Blend([(1000, {"papers": 0.7, "guidelines": 0.2, "replay": 0.1})])
    seen = collections.Counter()
    for sample in range(1000):
        seen[blend.locate(sample)[0]] += 1
        assert abs(seen["papers"] - 0.7 * (sample + 1)) <= 2
    assert seen == blend.counts == {"papers": 700, "guidelines": 200, "replay": 100}


def test_a_later_phase_continues_each_source():
    blend = Blend([(100, {"a": 3, "b": 1}), (60, {"b": 1, "c": 1}), (40, {"a": 1, "c": 3})])
    assert len(blend) == 200
    located = [blend.locate(sample) for sample in range(200)]
    assert {name for name, _ in located[100:160]} == {"b", "c"}
    for name in "abc":
        numbers = [number for source, number in located if source == name]
        assert numbers == list(range(blend.counts[name]))  # each sample once, in its order
    assert blend.counts == {"a": 75 + 10, "b": 25 + 30, "c": 30 + 30}


def test_a_longer_run_has_the_same_beginning():
    short, long = Blend([(100, {"a": 3, "b": 1})]), Blend([(1000, {"a": 3, "b": 1})])
    assert [short.locate(n) for n in range(100)] == [long.locate(n) for n in range(100)]


def test_samples_come_from_their_source():
    blend = Blend([(4, {"a": 1, "b": 1})])
    samples = BlendedSamples(blend, {"a": ["a0", "a1"], "b": ["b0", "b1"]})
    assert sorted(samples[n] for n in range(len(samples))) == ["a0", "a1", "b0", "b1"]
    with pytest.raises(IndexError):
        samples[4]
