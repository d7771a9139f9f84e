"""Time of the phases of a training step, as the device sees it."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

PHASES = ("data", "forward_backward", "gradient_sync", "optimizer", "checkpoint", "validation")
"""Phases in the run log. gradient_sync is what remains of the gradients' communication after the
backward pass; each moment belongs to the innermost phase only."""


class StepTimers:
    """Sums the time of each phase between marks in the device's work, without synchronizing it.

    Args:
        new_event: makes a mark, as `Platform.new_event`.
    """

    def __init__(self, new_event: Callable[[], Any]) -> None:
        self._new_event = new_event
        self._phase = ""
        self._begin: Any = None
        self._pending: deque[tuple[str, Any, Any]] = deque()
        self._seconds: dict[str, float] = {}
        self._steps = 0
        self.annotate: Callable[[str], contextlib.AbstractContextManager[Any]] | None = None
        """Names a phase in a profile, while there is one."""

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the work inside the block as a phase."""
        annotation = contextlib.nullcontext() if self.annotate is None else self.annotate(name)
        before = self._enter(name)
        try:
            with annotation:
                yield
        finally:
            self._enter(before)

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a function whose work counts as a phase."""

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **options)

        return timed

    def _enter(self, phase: str) -> str:
        before = self._phase
        event = self._new_event()
        event.record()
        if before:
            self._pending.append((before, self._begin, event))
        self._phase = phase
        self._begin = event
        return before

    def collect(self) -> None:
        """Add up the phases whose end the device has reached."""
        while self._pending and self._pending[0][2].query():
            phase, begin, end = self._pending.popleft()
            self._seconds[phase] = self._seconds.get(phase, 0.0) + begin.elapsed_time(end) / 1000

    def end_step(self) -> None:
        """Count a step."""
        self._steps += 1
        self.collect()

    def take(self) -> dict[str, float]:
        """Return the seconds per step of each phase since the last call, and reset.

        The end of the last step counts next time, where the device has not reached it.
        """
        steps = max(1, self._steps)
        seconds = {
            phase: round(self._seconds[phase] / steps, 6)
            for phase in PHASES
            if phase in self._seconds
        }
        self._seconds = {}
        self._steps = 0
        return seconds
