"""Caches with room against transformers' own."""

import copy

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from evaluation.backends import growing_cache
from evaluation.backends.growing_cache import GrowingLayer


def states(rows, positions, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, positions, 4, generator=generator)


@pytest.fixture
def cache():
    cache = DynamicCache()
    cache.update(states(3, 5, 0), states(3, 5, 1), 0)
    return cache


def test_the_same_keys_and_values_as_a_dynamic_cache(cache, monkeypatch):
    monkeypatch.setattr(growing_cache, "_ROOM", 3)
    expected = copy.deepcopy(cache)
    growing_cache.with_room(cache)
    assert type(cache.layers[0]) is GrowingLayer
    rows = 3
    for step in range(12):
        if step == 6:
            rows = 2
            for item in (cache, expected):
                item.batch_select_indices(torch.tensor([0, 2]))
        new = states(rows, 1 + step % 2, 2 * step), states(rows, 1 + step % 2, 2 * step + 1)
        pairs = zip(cache.update(*new, 0), expected.update(*new, 0), strict=True)
        assert all(torch.equal(actual, other) for actual, other in pairs)
        assert cache.get_seq_length() == expected.get_seq_length()


def test_steps_within_the_room_copy_nothing(cache):
    growing_cache.with_room(cache)
    first, _ = cache.update(states(3, 1, 2), states(3, 1, 3), 0)
    second, _ = cache.update(states(3, 1, 4), states(3, 1, 5), 0)
    assert first.data_ptr() == second.data_ptr()


def test_other_layers_remain():
    sliding = DynamicSlidingWindowLayer(sliding_window=4)
    empty = DynamicLayer()
    cache = DynamicCache()
    cache.layers = [sliding, empty]
    growing_cache.with_room(cache)
    assert cache.layers == [sliding, empty]
    growing_cache.with_room(object())  # of a model folder's own code
