"""Stopping a run early: the processes agree on it, since only together can they save."""

import torch

from galen.stop_signals import NAMES, StopSignals


class ValidationStopped(Exception):
    """A validation was interrupted by a request to stop; it is repeated on resuming."""


class Stopping:
    """Says whether any process was asked to stop.

    Args:
        signals: what this process has heard.
    """

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self.reason: str | None = None
        """The signal that all processes know of, or None."""

    def asked_here(self) -> bool:
        """Say whether this process was asked."""
        return self.signals.received is not None

    def agreed(self, device: torch.device) -> bool:
        """Return whether any process was asked to stop; collective, the same answer for all."""
        if self.reason is None:
            number = NAMES.index(self.signals.received) + 1 if self.signals.received else 0
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                highest = torch.tensor(number, device=device)
                torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
                number = int(highest)
            self.reason = NAMES[number - 1] if number else None
        return self.reason is not None
