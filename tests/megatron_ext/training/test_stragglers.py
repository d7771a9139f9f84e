import pytest
import torch

from megatron_ext.hardware.platforms import Platform
from megatron_ext.training.stragglers import ComputeProbe, find_slow

HOSTS = ["a", "a", "b", "b", "c"]
EVEN = [1.0, 1.1, 1.0, 1.2, 1.1]


def test_a_slow_process_is_named_with_its_host_and_probe():
    times = {"gemm": EVEN, "memory": [2.0, 2.1, 2.0, 4.0, 2.2], "host": [9.0, 1.0, 1.0, 1.0, 1.0]}
    assert find_slow(times, HOSTS, 1.3) == [
        {"rank": 0, "host": "a", "probe": "host", "seconds": 9.0, "median": 1.0},
        {"rank": 3, "host": "b", "probe": "memory", "seconds": 4.0, "median": 2.1},
    ]


@pytest.mark.parametrize(
    ("times", "ranks"), [([1.0, 2.0], [1]), ([7.0], []), (EVEN, []), ([1.0, 2.0, 2.0], [])]
)
def test_the_lower_median_is_the_reference(times, ranks):
    slow = find_slow({"gemm": times}, HOSTS[: len(times)], 1.3)
    assert [record["rank"] for record in slow] == ranks


def test_a_probe_takes_milliseconds_and_no_random_numbers():
    platform = Platform(device=torch.device("cpu"), backend="gloo", transformer_engine=False)
    before = torch.get_rng_state()
    seconds = ComputeProbe(platform).measure()
    assert torch.equal(torch.get_rng_state(), before)
    assert seconds.keys() == {"gemm", "memory", "host"}
    assert all(0 < value < 0.1 for value in seconds.values())
