"""Binding to the processors of a GPU's NUMA node."""

import os

import pytest

from megatron_ext.hardware import numa

ADDRESS = "0000:1b:00.0"


@pytest.fixture
def bound(tmp_path, monkeypatch):
    """Return a function that binds near processors `near` from an affinity to `allowed`."""

    def bind(near, allowed):
        (tmp_path / ADDRESS).mkdir()
        (tmp_path / ADDRESS / "local_cpulist").write_text(f"{near}\n")
        affinity = set(allowed)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(affinity))

        def set_affinity(_, cpus):
            affinity.clear()
            affinity.update(cpus)

        monkeypatch.setattr(os, "sched_setaffinity", set_affinity)
        return numa.bind(ADDRESS, tmp_path), affinity

    return bind


def test_a_process_is_bound_to_the_node_of_its_gpu(bound):
    assert bound("0-3,8-11", range(16)) == ("0-3,8-11", {0, 1, 2, 3, 8, 9, 10, 11})


def test_a_narrower_binding_stays(bound):
    assert bound("0-3", {2, 3, 4}) == ("0-3", {2, 3})


def test_a_binding_elsewhere_stays(bound):
    assert bound("0-3", {4, 5}) == (None, {4, 5})


def test_the_binding_can_be_disabled(bound, monkeypatch):
    monkeypatch.setenv("GALEN_NUMA_BINDING", "0")
    assert bound("0-3", range(8)) == (None, set(range(8)))


def test_an_unknown_device_is_ignored(tmp_path):
    assert numa.bind(ADDRESS, tmp_path) is None
