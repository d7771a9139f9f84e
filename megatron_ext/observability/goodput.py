"""Goodput: the parts of a run's wall time over all its starts; `accounting` computes them."""

import dataclasses
from typing import Any

from megatron_ext.observability.save_interval import SaveInterval

PARTS = {
    "training": "training",
    "startup": "start-up",
    "data_wait": "data wait",
    "checkpoint": "checkpoint stall",
    "validation": "validation",
    "lost": "lost work",
    "queue": "queue",
    "idle": "idle",
    "unknown": "unknown",
}
"""Names of the parts as they are displayed."""
STARTUP = {
    "launch": "batch job and launch",
    "imports": "imports",
    "process_group": "process groups",
    "model": "model and optimizer",
    "checkpoint_load": "checkpoint load",
    "data_index": "data index",
    "interrupted": "interrupted start-up",
}
"""Names of the items of start-up."""


@dataclasses.dataclass(kw_only=True)
class Start:
    """One start of a run."""

    number: int
    began: float
    """Of its process, in seconds since the epoch."""
    host: str
    """Of rank 0."""
    ranks: int | None
    layout: str | None
    """Its parallel sizes, such as TP2 PP1 CP1 DP4."""
    device: str | None = None
    """Name of the GPUs or processors, None if it is not recorded."""
    resumed_from: int | None
    """Step of its checkpoint, None if it did not come so far."""
    last_step: int | None
    cause: str = "running"
    """Of its end: finished, running, one of `FAILURES`, …"""
    detail: str = ""
    lost_steps: int = 0
    """Steps that were, or have to be, repeated."""
    rollbacks: int = 0
    """Rollbacks after a loss spike."""
    saves: int = 0
    parts: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    """Seconds, with those of the gap before this start."""
    startup: dict[str, float] = dataclasses.field(default_factory=dict)
    """Items of the start-up, in seconds."""

    @property
    def seconds(self) -> float:
        """Wall time, with the gap before this start."""
        return sum(self.parts.values())


@dataclasses.dataclass(kw_only=True)
class Goodput:
    """Parts of a run's wall time."""

    starts: list[Start]
    began: float
    """Start of the wall time, in seconds since the epoch."""
    ended: float
    """Its end: the run's end, or the last line of a running one."""
    first_step: int
    """Steps done before the record begins, by a version of Galen without it."""
    damaged_lines: int
    save_interval: SaveInterval | None
    """None until a step and a save have been measured."""
    stall_phases: dict[str, float]
    """Mean seconds that training stood still for a save, by phase, of the saves in log.jsonl."""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each part over all starts."""
        return {part: sum(start.parts[part] for start in self.starts) for part in PARTS}

    @property
    def startup(self) -> dict[str, float]:
        """Seconds of each item of the start-ups."""
        return {
            item: sum(start.startup.get(item, 0.0) for start in self.starts) for item in STARTUP
        }

    @property
    def seconds(self) -> float:
        """Wall time, the sum of the parts."""
        return sum(self.parts.values())

    @property
    def fraction(self) -> float:
        """Goodput: the fraction of the wall time that was spent on steps that count."""
        return self.parts["training"] / self.seconds if self.seconds else 0.0

    @property
    def fraction_of_allocated(self) -> float:
        """The same of the time without queue and idle."""
        allocated = self.seconds - self.parts["queue"] - self.parts["idle"]
        return self.parts["training"] / allocated if allocated > 0 else 0.0

    @property
    def lost_steps(self) -> int:
        """Steps that were, or have to be, repeated."""
        return sum(start.lost_steps for start in self.starts)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types; times in seconds."""
        return {
            "goodput": self.fraction,
            "goodput_of_allocated": self.fraction_of_allocated,
            "wall_seconds": self.seconds,
            "parts": self.parts,
            "startup": self.startup,
            "lost_steps": self.lost_steps,
            **dataclasses.asdict(self),
        }


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{fraction:.1%}"


def summary(goodput: Goodput | None) -> str:
    """Return the goodput and the largest other parts in one line."""
    if goodput is None:
        return "unknown (no goodput.jsonl)"
    others = sorted(
        ((seconds, part) for part, seconds in goodput.parts.items() if part != "training"),
        reverse=True,
    )
    shown = [
        f"{PARTS[part]} {seconds / goodput.seconds:.1%}"
        for seconds, part in others[:4]
        if goodput.seconds and seconds >= 0.0005 * goodput.seconds
    ]
    text = percent(goodput.fraction)
    return f"{text} ({', '.join(shown)})" if shown else text
