"""Divides the wall time of a run over all its starts, from RUN/goodput.jsonl.

The parts of a start are the seconds of its phases, the gap to the start before, and the time from
its last line to its end; each moment is counted once, so that they sum to the wall time. Steps
beyond the checkpoint from which a later start resumed are lost work.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from galen import manifest
from megatron_ext.observability import goodput_records, save_interval
from megatron_ext.observability.end_causes import (
    FAILURES,
    cause_of_end,
    was_requeued_by_slurm,
)
from megatron_ext.observability.goodput import Goodput, Start
from megatron_ext.observability.goodput_records import Line, Records, StartRecord
from megatron_ext.observability.phase_clock import last_heartbeats
from megatron_ext.observability.save_interval import SaveInterval

_MAX_CLOCK_DIFFERENCE = 600.0
"""Seconds by which the clocks of two machines may differ."""
_STARTUP_PHASES = ("imports", "process_group", "model", "checkpoint_load", "data_index")
_WORK = {
    "train": "training",
    "data_wait": "data_wait",
    "checkpoint": "checkpoint",
    "validation": "validation",
}
"""Part of each phase whose steps can be lost."""


@dataclasses.dataclass
class _Segment:
    """Lines of a start from a checkpoint to its end or a rollback."""

    start: Start
    base: int
    """Step of the checkpoint."""
    lines: list[Line]
    is_failed: bool = False
    """Whether the time of the last line is lost."""


def read(
    run: Path,
    interval: int,
    checkpoint: int | None,
    is_running: bool,
    saves: Sequence[Mapping[str, Any]] = (),
) -> Goodput | None:
    """Return the goodput of a run, None where it has recorded none.

    Args:
        run: run folder.
        interval: the recipe's save_interval, in steps.
        checkpoint: step of the newest checkpoint.
        is_running: whether the last start is in progress.
        saves: records of checkpoints in log.jsonl.
    """
    records = goodput_records.read(run)
    if records is None:
        return None
    last = records.starts[-1]
    if last.end_reason is None and (run / manifest.NAME).is_file():  # killed right after that
        last.end_reason = "finished"
    goodput = account(records, interval, checkpoint, is_running, last_heartbeats(run))
    goodput.stall_phases = _stall_phases(saves)
    return goodput


def account(
    records: Records,
    interval: int,
    checkpoint: int | None,
    is_running: bool,
    heartbeats: dict[str, Any],
) -> Goodput:
    """Divide the wall time of a run; see `read`.

    Args:
        records: content of its goodput.jsonl.
        interval: the recipe's save_interval, in steps.
        checkpoint: step of the newest checkpoint.
        is_running: whether the last start is in progress.
        heartbeats: the last ones; see `phase_clock.last_heartbeats`.
    """
    starts: list[Start] = []
    segments: list[_Segment] = []
    now = _first_moment(records.starts[0])
    began = now
    for number, record in enumerate(records.starts):
        following = records.starts[number + 1] if number + 1 < len(records.starts) else None
        start = Start(
            number=number + 1,
            began=record.began,
            host=record.host,
            ranks=record.ranks,
            layout=record.layout,
            device=record.device,
            resumed_from=record.resumed_from if record.is_ready else None,
            last_step=max((line.step for line in record.lines), default=0)
            if record.is_ready
            else None,
        )
        now = _add_gap(start, record, now)
        now = _add_clock_error(start, record, now)
        segments += _segments(start, record)
        seen = following.previous if following else heartbeats
        if following or not is_running:
            end = cause_of_end(record, following, seen)
            start.cause = end.cause
            start.detail = end.detail
            now = _add_tail(start, record, following, seen, now)
        starts.append(start)
    is_ready = records.starts[-1].is_ready
    all_counts = (is_running and is_ready) or starts[-1].cause == "finished"
    _assign(segments, None if all_counts else checkpoint or 0)
    return Goodput(
        starts=starts,
        began=began,
        ended=now,
        first_step=next((one.resumed_from for one in records.starts if one.is_ready), 0),
        damaged_lines=records.damaged_lines,
        save_interval=_recommend(starts, interval, _measured(segments)),
        stall_phases={},
    )


def _stall_phases(saves: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean seconds per save of each phase of a save, from records of log.jsonl."""
    totals: dict[str, float] = {}
    for record in saves:
        phases = record.get("phases")
        for phase, seconds in (phases if isinstance(phases, Mapping) else {}).items():
            if isinstance(seconds, int | float) and 0 <= seconds < math.inf:
                totals[phase] = totals.get(phase, 0.0) + seconds
    number = sum(record["kind"] == "checkpoint" for record in saves)
    return {phase: seconds / number for phase, seconds in totals.items()} if number else {}


def _first_moment(record: StartRecord) -> float:
    """Return when the wall time of a run begins: when its first job could have started."""
    job = record.job
    queued = job.submitted if job.eligible is None else job.eligible
    moments = [record.began, job.started, queued]
    return min(moment for moment in moments if moment is not None)


def _add_gap(start: Start, record: StartRecord, now: float) -> float:
    """Divide the time from `now` to the begin of a start's process; return its begin.

    It is idle up to the job's submission, queue up to the job's start, then start-up.
    """
    job = record.job
    launched = None
    if job.started is not None and job.started - record.began < _MAX_CLOCK_DIFFERENCE:
        launched = min(job.started, record.began)
    queued = job.submitted
    if start.number == 1 and job.eligible is not None:
        queued = job.eligible
    if launched is None or (queued is not None and queued > launched):
        queued = None
    steps = [("idle", queued), ("queue" if queued else "idle", launched)]
    for part, moment in steps:
        if moment is not None and moment > now:
            start.parts[part] += moment - now
            now = moment
    if record.began > now:
        if launched is None:
            start.parts["idle"] += record.began - now
        else:
            _add_startup(start, "launch", record.began - now)
        now = record.began
    return now


def _add_clock_error(start: Start, record: StartRecord, now: float) -> float:
    """Count the time of a start that its lines do not account for; return its last moment.

    There is some where a line is missing or the clock was set. The begin may be before `now` where
    the clocks of two nodes differ.
    """
    measured = sum(sum(line.seconds.values()) for line in record.lines)
    last = max([record.began, *(line.time for line in record.lines)])
    start.parts["unknown"] += max(0.0, last - record.began - measured)
    return now + max(last - record.began, measured)


def _segments(start: Start, record: StartRecord) -> list[_Segment]:
    """Add the time of a start's phases that cannot be lost; return its segments."""
    segments = []
    current = None
    for line in record.lines:
        for phase, seconds in line.seconds.items():
            if phase in _STARTUP_PHASES:
                _add_startup(start, phase, seconds)
            elif phase == "shutdown":
                start.parts["idle"] += seconds
            elif phase not in _WORK or (current is None and line.kind != "ready"):
                start.parts["unknown"] += seconds
        start.saves += line.kind == "save"
        if line.kind == "ready":
            current = _Segment(start, line.step, [line])
            segments.append(current)
        elif current is not None:
            current.lines.append(line)
        if line.kind == "rollback" and current is not None:
            current.is_failed = True
            start.rollbacks += 1
            current = _Segment(start, line.step, [])
            segments.append(current)
    if current is not None:
        current.is_failed = record.end_reason == "failed"
    return segments


def _add_startup(start: Start, item: str, seconds: float) -> None:
    start.parts["startup"] += seconds
    start.startup[item] = start.startup.get(item, 0.0) + seconds


def _assign(segments: list[_Segment], last_base: int | None) -> None:
    """Add the time of all segments to training, data wait, … or to lost work.

    Args:
        segments: of all starts.
        last_base: step from which the next start will resume; None if all work counts so far.
    """
    base = last_base
    for segment in reversed(segments):
        lost = set()
        for number, line in enumerate(segment.lines, 1):
            is_lost = base is not None and line.step > base
            is_lost |= segment.is_failed and number == len(segment.lines)
            if line.kind == "step" and base is not None and line.step > base:
                lost.add(line.step)
            for phase, seconds in line.seconds.items():
                if phase in _WORK:
                    segment.start.parts["lost" if is_lost else _WORK[phase]] += seconds
        segment.start.lost_steps += len(lost)
        base = segment.base if base is None else min(base, segment.base)


def _add_tail(
    start: Start,
    record: StartRecord,
    following: StartRecord | None,
    seen: dict[str, Any],
    now: float,
) -> float:
    """Count the time from the last line of a killed start to its end; return the end.

    The end is that of its last heartbeat, or when its batch script or Slurm noticed it.
    """
    if record.end_reason in ("finished", "stopped"):
        return now
    moments = [seen.get("last_seen"), record.exited]
    if following is not None and was_requeued_by_slurm(record, following):
        moments.append(following.job.submitted)
    last = max((line.time for line in record.lines), default=record.began)
    tail = max((moment - last for moment in moments if moment is not None), default=0.0)
    if following is not None:
        tail = min(tail, following.began - last)
    if tail <= 0:
        return now
    if record.is_ready:
        start.parts["lost"] += tail
    else:
        _add_startup(start, "interrupted", tail)
    return now + tail


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Sums over all starts, lost work included."""

    step_seconds: float
    steps: int
    stall_seconds: float
    saves: int


def _measured(segments: list[_Segment]) -> _Measured:
    seconds = dict.fromkeys(_WORK, 0.0)
    kinds = {"step": 0, "save": 0}
    for segment in segments:
        for line in segment.lines:
            if line.kind in kinds:
                kinds[line.kind] += 1
            for phase in _WORK.keys() & line.seconds.keys():
                seconds[phase] += line.seconds[phase]
    return _Measured(
        step_seconds=seconds["train"] + seconds["data_wait"],
        steps=kinds["step"],
        stall_seconds=seconds["checkpoint"],
        saves=kinds["save"],
    )


def _recommend(starts: list[Start], interval: int, figures: _Measured) -> SaveInterval | None:
    """Return the recommended save interval, None where too little has been measured."""
    if not figures.steps or not figures.saves:
        return None
    failed = [start for start in starts if start.cause in FAILURES]
    failures = len(failed) + sum(start.rollbacks for start in starts)
    outside = ("queue", "idle")
    operating = sum(start.seconds - sum(start.parts[part] for part in outside) for start in starts)
    restarts = [
        following.parts["startup"] + following.parts["queue"] + following.parts["idle"]
        for start, following in itertools.pairwise(starts)
        if start.cause in FAILURES
    ]
    if not restarts:
        restarts = [start.parts["startup"] for start in starts]
    return save_interval.recommend(
        present=interval,
        stall_seconds=figures.stall_seconds / figures.saves,
        step_seconds=figures.step_seconds / figures.steps,
        failures=failures,
        operating_seconds=operating,
        restart_seconds=sum(restarts) / len(restarts),
    )
