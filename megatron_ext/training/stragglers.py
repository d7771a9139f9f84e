"""Finds stragglers: processes that are slower than others with the same work."""

import socket
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state

from megatron_ext.hardware.platforms import Platform


class WorkTimer:
    """Sums the time that this process computes, without the time that it waits for others.

    Args:
        platform: its events are the clock.
        enabled: whether anything is measured.
    """

    def __init__(self, platform: Platform, enabled: bool) -> None:
        self.enabled = enabled
        self._new_event = platform.new_event
        self._spans: list[tuple[Any, Any]] = []

    def start(self) -> None:
        """Begin a span of work."""
        if self.enabled:
            self._started = self._new_event()
            self._started.record()

    def stop(self) -> None:
        """End it."""
        if self.enabled:
            ended = self._new_event()
            ended.record()
            self._spans.append((self._started, ended))

    def take(self) -> float:
        """Return the seconds of work since the last call, and reset.

        The device must have completed all its work.
        """
        seconds = sum(started.elapsed_time(ended) for started, ended in self._spans) / 1000
        self._spans = []
        return seconds


class StragglerReport:
    """Compares the speed of the processes of a run. All its methods are collective.

    Args:
        ratio: a process is slow when it needs more than this multiple of the median of its pipeline
            stage.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        own = (socket.gethostname(), parallel_state.get_pipeline_model_parallel_rank())
        self.hosts_and_stages: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(self.hosts_and_stages, own)

    def slow(self, seconds: float, device: torch.device) -> list[dict[str, Any]]:
        """Return `{rank, host, seconds, median}` of each slow process.

        Args:
            seconds: that this process computed.
            device: of the collective's tensors.
        """
        own = torch.tensor([seconds], dtype=torch.float64, device=device)
        gathered = torch.empty(len(self.hosts_and_stages), dtype=torch.float64, device=device)
        torch.distributed.all_gather_into_tensor(gathered, own)
        return find_slow(gathered.tolist(), self.hosts_and_stages, self.ratio)


def find_slow(
    seconds: Sequence[float], hosts_and_stages: Sequence[tuple[str, int]], ratio: float
) -> list[dict[str, Any]]:
    """Return the processes that need more than `ratio` times the median of their pipeline stage.

    Args:
        seconds: of each process.
        hosts_and_stages: host and pipeline stage of each process.
        ratio: multiple of the median.
    """
    peers: dict[int, list[float]] = defaultdict(list)
    for time, (_, stage) in zip(seconds, hosts_and_stages, strict=True):
        peers[stage].append(time)
    # the lower one: of two processes the slow one must not be the reference
    medians = {stage: statistics.median_low(times) for stage, times in peers.items()}
    return [
        {"rank": rank, "host": host, "seconds": round(time, 3), "median": round(medians[stage], 3)}
        for rank, (time, (host, stage)) in enumerate(zip(seconds, hosts_and_stages, strict=True))
        if time > ratio * medians[stage]
    ]
