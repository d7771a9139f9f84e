"""Finds the process that is slower than the others that do the same work."""

import socket
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state

from megatron_ext.hardware.platforms import Platform


class WorkTimer:
    """Adds up the time that this process computes, not the time that it waits for others.

    Args:
        platform: its events are the clock.
        on: whether anything is measured.
    """

    def __init__(self, platform: Platform, on: bool) -> None:
        self._event, self.on = platform.new_event, on
        self._spans: list[tuple[Any, Any]] = []

    def start(self) -> None:
        """Begin a span of work."""
        if self.on:
            self._begun = self._event()
            self._begun.record()

    def stop(self) -> None:
        """End it."""
        if self.on:
            ended = self._event()
            ended.record()
            self._spans.append((self._begun, ended))

    def take(self) -> float:
        """Return the seconds since the last call, and restart the clock.

        The device must have completed all its work.
        """
        seconds = sum(begun.elapsed_time(ended) for begun, ended in self._spans) / 1000
        self._spans = []
        return seconds


class StragglerReport:
    """Compares the processes of a run now and then. All its methods are collective.

    Args:
        ratio: a process is slow that needs this many times the median of those that hold the same
            layers.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        place = (socket.gethostname(), parallel_state.get_pipeline_model_parallel_rank())
        self.places: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(self.places, place)

    def slow(self, seconds: float, device: torch.device) -> list[dict[str, Any]]:
        """Return `{rank, host, seconds, median}` of each slow process.

        `seconds` is the time that this process worked.
        """
        own = torch.tensor([seconds], dtype=torch.float64, device=device)
        gathered = torch.empty(len(self.places), dtype=torch.float64, device=device)
        torch.distributed.all_gather_into_tensor(gathered, own)
        return find_slow(gathered.tolist(), self.places, self.ratio)


def find_slow(
    seconds: Sequence[float], places: Sequence[tuple[str, int]], ratio: float
) -> list[dict[str, Any]]:
    """Return the processes that need more than `ratio` times the median of their pipeline stage.

    Args:
        seconds: of each process.
        places: host and pipeline stage of each process.
        ratio: how much is slow.
    """
    peers: dict[int, list[float]] = defaultdict(list)
    for time, (_, stage) in zip(seconds, places, strict=True):
        peers[stage].append(time)
    # of two the slow one must not be the measure
    medians = {stage: statistics.median_low(times) for stage, times in peers.items()}
    return [
        {"rank": rank, "host": host, "seconds": round(time, 3), "median": round(medians[stage], 3)}
        for rank, (time, (host, stage)) in enumerate(zip(seconds, places, strict=True))
        if time > ratio * medians[stage]
    ]
