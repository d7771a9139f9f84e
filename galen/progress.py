"""Progress of long work: a bar on a terminal, elsewhere a plain line every ten seconds."""

import sys
import time
from collections.abc import Callable
from typing import Self

from tqdm import tqdm

LINE_SECONDS = 10.0
"""Time between two lines when standard error is not a terminal."""


class Progress:
    """Counts units of work towards an optional total; shows rate and ETA on standard error.

    Args:
        label: name of the work, for example "tokenize".
        total: number of units, or None if unknown; an estimate that is too small grows with
            `done`.
        unit: name of a unit, for example "documents" or "B"; with `scale`, shown with k, M, G.
    """

    def __init__(
        self, label: str, total: float | None = None, unit: str = "it", scale: bool = False
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = 0.0
        self._shown = 0.0
        self._start = time.monotonic()
        self._last = self._start
        self._size: Callable[[float], str] = tqdm.format_sizeof if scale else "{:,.0f}".format
        self._unit = unit if scale else f" {unit}"  # 40.0MB, but 40 documents
        self._bar = (
            tqdm(total=total, desc=label, unit=f" {unit}", unit_scale=scale)
            if sys.stderr.isatty()
            else None
        )

    def update(self, units: float = 1) -> None:
        """Add `units` to `done`."""
        self.done += units
        if self.total:
            self.total = max(self.total, self.done)
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(units)
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        self._shown = self.done
        print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        text = f"{self.label}: {self._size(self.done)}"
        if self.total:
            text += f" of {self._size(self.total)}{self._unit} ({self.done / self.total:.0%})"
        else:
            text += self._unit
        text += f", {self._size(rate) if rate >= 10 else f'{rate:.2g}'}{self._unit}/s"
        if self.total and rate > 0:
            text += f", {tqdm.format_interval((self.total - self.done) / rate)} left"
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif error_type is None and self.done != self._shown:
            self._print()
