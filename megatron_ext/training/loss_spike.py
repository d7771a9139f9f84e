"""Detects spikes of the training loss."""

import math
import statistics


class LossSpikeDetector:
    """Compares each loss with the median of the last ones.

    Args:
        threshold: a loss above this multiple of the median is a spike; None disables detection.
        window: number of losses in the median; no spike is detected before half of them are known.
        recent: the last losses, of a run that resumes.
    """

    def __init__(self, threshold: float | None, window: int, recent: list[float]) -> None:
        self.threshold = threshold
        self.window = window
        self.recent = recent[-window:]

    @property
    def median(self) -> float:
        """Median of the last losses; NaN before the first."""
        return statistics.median(self.recent) if self.recent else math.nan

    def is_spike(self, loss: float) -> bool:
        """Return whether `loss` is a spike; a loss that is not finite is none."""
        if self.threshold is None or not math.isfinite(loss):
            return False
        if len(self.recent) < max(1, self.window // 2):
            return False
        return loss > self.threshold * self.median

    def update(self, loss: float) -> None:
        """Add a loss to the window."""
        if self.threshold is not None:
            self.recent = [*self.recent, loss][-self.window :]
