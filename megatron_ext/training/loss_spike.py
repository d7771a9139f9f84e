"""Tells a spike of the loss from its noise."""

import math
import statistics


class LossGuard:
    """Watches the losses of a run.

    Args:
        threshold: a loss above this many times the median of the last ones is a spike; None to see
            none.
        window: how many losses the median is taken of; no spike is seen before there are half as
            many.
        recent: the last losses, of a run that goes on.
    """

    def __init__(self, threshold: float | None, window: int, recent: list[float]) -> None:
        self.threshold, self.window = threshold, window
        self.recent = recent[-window:]

    def spike(self, loss: float) -> float | None:
        """Return the median when `loss` is a spike over it, else None."""
        if (
            self.threshold is None
            or len(self.recent) < max(1, self.window // 2)
            or not math.isfinite(loss)
        ):
            return None
        median = statistics.median(self.recent)
        return median if loss > self.threshold * median else None

    def accept(self, loss: float) -> None:
        """Take a loss among those that the next ones are compared with."""
        if self.threshold is not None:
            self.recent = [*self.recent, loss][-self.window :]
