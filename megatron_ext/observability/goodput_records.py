"""Reads RUN/goodput.jsonl into the starts of a run. Lines that are damaged are skipped."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_ext.observability.phase_clock import FILE

_MAX_SECONDS = 1e11


@dataclasses.dataclass(frozen=True)
class Line:
    """A line with the seconds since the one before."""

    kind: str
    time: float
    """End of those seconds, since the epoch."""
    step: int
    """Steps done."""
    seconds: dict[str, float]
    """By phase."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The batch job of a start; its times are None where unknown."""

    id: int | None = None
    restarts: int = 0
    submitted: float | None = None
    """Time of the submission, or of the last requeue."""
    eligible: float | None = None
    """Time since which it could have started; a dependency delays it."""
    started: float | None = None


@dataclasses.dataclass(kw_only=True)
class StartRecord:
    """The lines of one start of a run."""

    began: float
    host: str = ""
    ranks: int | None = None
    layout: str | None = None
    device: str | None = None
    job: Job = Job()
    hang_limit: float | None = None
    """Seconds after which the watchdog ends the run."""
    is_ready: bool = False
    """Whether it came as far as its first step."""
    resumed_from: int = 0
    """Step of its checkpoint, once it is ready."""
    lines: list[Line] = dataclasses.field(default_factory=list)
    stop_reason: str | None = None
    """The reason to stop early, once the processes had agreed on it."""
    end_reason: str | None = None
    """finished, stopped or failed; None for a start that left no last line."""
    end_detail: str = ""
    exit_code: int | None = None
    """As the batch script knows it."""
    exited: float | None = None
    """Time at which the batch script knew that."""
    previous: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Last heartbeats of the start before; see `phase_clock.last_heartbeats`."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Content of goodput.jsonl."""

    starts: list[StartRecord]
    damaged_lines: int


def read(run: Path) -> Records | None:
    """Return the starts of a run, None where it has recorded none."""
    path = run / FILE
    if not path.is_file():
        return None
    content = path.read_bytes()
    starts: list[StartRecord] = []
    damaged = 0
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            if line:
                _add(json.loads(line), starts)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            damaged += 1
    return Records(starts, damaged) if starts else None


def _add(value: Mapping[str, Any], starts: list[StartRecord]) -> None:
    """Add a line of the file to the starts.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is damaged.
    """
    kind = value["kind"]
    if kind == "start":
        starts.append(_start(value))
    start = starts[-1]
    if kind == "exit":
        if start.exited is not None or not _is_of_job(value, start.job):
            return  # of a start that was refused
        start.exited = _seconds(value["time"])
        start.exit_code = int(value["exit_code"])
        return
    line = Line(
        str(kind),
        _seconds(value["time"]),
        _step(value["step"]),
        {str(phase): _seconds(part) for phase, part in value["seconds"].items()},
    )
    if kind == "ready":
        start.is_ready = True
        start.resumed_from = line.step
        start.layout = str(value["layout"])[:40]
        if "device" in value:
            start.device = str(value["device"])[:100]
        start.hang_limit = _seconds(value["hang_limit"])
    elif kind == "stop":
        start.stop_reason = str(value["reason"])[:40]
    elif kind == "end":
        start.end_reason = str(value["reason"])[:40]
        start.end_detail = str(value["detail"])[:500]
    start.lines.append(line)


def _is_of_job(value: Mapping[str, Any], job: Job) -> bool:
    """Return whether an exit can be that of a start of a batch job."""
    exited = value.get("job")
    if not isinstance(exited, Mapping) or "id" not in exited:
        return True
    return exited["id"] == job.id and exited.get("restarts", 0) == job.restarts


def _start(value: Mapping[str, Any]) -> StartRecord:
    job = value["job"]
    previous = value["previous"]
    seen = {
        name: _seconds(previous[name])
        for name in ("last_seen", "phase_seconds")
        if name in previous
    }
    hosts = [str(host)[:100] for host in previous.get("silent_hosts", ())]
    times = {
        name: _seconds(job[name]) for name in ("submitted", "eligible", "started") if name in job
    }
    # before the line's own fields are used: a damaged line adds no start
    _step(value["step"])
    _seconds(value["time"])
    return StartRecord(
        began=_seconds(value["began"]),
        host=str(value["host"])[:100],
        ranks=_step(value["ranks"]),
        job=Job(id=job.get("id"), restarts=_step(job.get("restarts", 0)), **times),
        previous={**seen, "silent_hosts": hosts[:8]},
    )


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    if not 0 <= value <= _MAX_SECONDS:
        raise ValueError("not a time")
    return float(value)


def _step(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 10**12:
        raise ValueError("not a count")
    return value
