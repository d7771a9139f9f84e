"""Finds stragglers: processes whose own device or host is slower than the others'.

Each process times the same small work outside all collectives. The time of a training step would
not do: tensor parallelism makes all processes of a group wait for their slowest in each layer.
"""

import itertools
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from megatron_ext.hardware.platforms import Platform

REPETITIONS = 5
"""Measurements of each probe; the fastest counts, so that a passing disturbance does not."""
_HOST_LOOP = 5_000


class ComputeProbe:
    """Times a GEMM, a copy in the device's memory, and a loop of Python.

    A few milliseconds on a GPU (GEMMs of 4,096 in bf16, copies of 64 MiB; 160 MiB of memory), and
    about one on a CPU.

    Args:
        platform: of this process.
    """

    def __init__(self, platform: Platform) -> None:
        size, dtype, gemms, numbers = platform.probe_size
        self._new_event = platform.new_event
        self._gemms = gemms
        # no random numbers: the run's must not change
        buffer = torch.arange(numbers, device=platform.device, dtype=torch.int32).remainder_(7)
        self._buffer = buffer.sub_(3).to(dtype)
        matrices = self._buffer[: 3 * size * size].view(3, size, size)
        self._left = matrices[0]
        self._right = matrices[1]
        self._product = torch.empty_like(self._left)
        self._halves = self._buffer.view(2, -1)

    def measure(self) -> dict[str, float]:
        """Return the seconds of each probe."""
        return {
            "gemm": self._device_seconds(self._multiply),
            "memory": self._device_seconds(self._copy),
            "host": min(_loop_seconds() for _ in range(REPETITIONS)),
        }

    def _multiply(self) -> None:
        for _ in range(self._gemms):
            torch.matmul(self._left, self._right, out=self._product)

    def _copy(self) -> None:
        self._halves[1].copy_(self._halves[0])

    def _device_seconds(self, work: Any) -> float:
        events = [self._new_event() for _ in range(REPETITIONS + 1)]
        work()  # loads the kernel
        events[0].record()
        for event in events[1:]:
            work()
            event.record()
        events[-1].synchronize()
        spans = [start.elapsed_time(end) for start, end in itertools.pairwise(events)]
        return float(min(spans)) / 1000


def _loop_seconds() -> float:
    start = time.perf_counter()
    sum(number & 7 for number in range(_HOST_LOOP))
    return time.perf_counter() - start


class StragglerReport:
    """Compares the speed of the processes of a run. All its methods are collective.

    Args:
        platform: of this process.
        interval: steps between comparisons; 0 disables them.
        ratio: a process is slow when it needs more than this multiple of the median.
    """

    def __init__(self, platform: Platform, interval: int, ratio: float) -> None:
        self.interval = interval
        self.ratio = ratio
        self._device = platform.device
        self._hosts: list[Any] = [None] * torch.distributed.get_world_size()
        if interval:
            self._probe = ComputeProbe(platform)
            torch.distributed.all_gather_object(self._hosts, socket.gethostname())

    def find(self, step: int) -> list[dict[str, Any]]:
        """Return `{rank, host, probe, seconds, median}` of each slow process.

        Empty unless a comparison is due after step number `step`.
        """
        if not self.interval or step % self.interval:
            return []
        measured = self._probe.measure()
        own = torch.tensor(list(measured.values()), dtype=torch.float64, device=self._device)
        gathered = own.new_empty(len(self._hosts) * len(measured))
        torch.distributed.all_gather_into_tensor(gathered, own)
        columns = zip(measured, gathered.view(-1, len(measured)).t().tolist(), strict=True)
        return find_slow(dict(columns), self._hosts, self.ratio)


def find_slow(
    seconds: Mapping[str, Sequence[float]], hosts: Sequence[str], ratio: float
) -> list[dict[str, Any]]:
    """Return the processes that need more than `ratio` times the median of a probe.

    Args:
        seconds: of each probe, the time of each process.
        hosts: of the processes.
        ratio: multiple of the median.
    """
    slow = []
    for probe, times in seconds.items():
        # the lower one: of two processes the slow one must not be the reference
        median = statistics.median_low(times)
        for rank, (one, host) in enumerate(zip(times, hosts, strict=True)):
            if one > ratio * median:
                record: dict[str, Any] = {"rank": rank, "host": host, "probe": probe}
                slow.append(record | {"seconds": round(one, 6), "median": round(median, 6)})
    return sorted(slow, key=lambda record: record["rank"])
