"""Why a start of a run ended, from its last lines, heartbeats, exit code and the next start."""

import dataclasses
import signal
from typing import Any

from megatron_ext.observability.goodput_records import StartRecord

FAILURES = ("crash", "node failure", "watchdog time-out", "requeue", "preemption signal (killed)")
"""Causes after which work can be lost."""


@dataclasses.dataclass(frozen=True)
class End:
    """Why a start ended."""

    cause: str
    """finished, stopped, time limit, preemption signal, or one of `FAILURES`."""
    detail: str


def was_requeued_by_slurm(record: StartRecord, following: StartRecord) -> bool:
    """Return whether Slurm itself requeued the job: its batch script could not."""
    job, after = record.job, following.job
    is_same_job = job.id is not None and job.id == after.id
    return is_same_job and after.restarts > job.restarts and record.exit_code is None


def cause_of_end(record: StartRecord, following: StartRecord | None, seen: dict[str, Any]) -> End:
    """Return why a start ended.

    Args:
        record: of the start.
        following: of the next start, if any.
        seen: its last heartbeats; see `phase_clock.last_heartbeats`.
    """
    if record.end_reason == "finished":
        return End("finished", "")
    if record.end_reason == "stopped":
        return _cause_of_stop(record)
    silent = seen.get("silent_hosts")
    if silent:
        return End("node failure", f"no heartbeat of {', '.join(silent)}")
    if record.hang_limit and seen.get("phase_seconds", 0.0) >= 0.95 * record.hang_limit:
        return End("watchdog time-out", record.end_detail)
    if following is not None and was_requeued_by_slurm(record, following):
        if record.stop_reason is not None:
            return End("requeue", f"by Slurm, after {record.stop_reason}")
        return End("node failure", "the batch script ended, too, and Slurm requeued the job")
    if record.stop_reason is not None:
        return End(
            "preemption signal (killed)", f"{record.stop_reason}, before the end of its save"
        )
    if record.end_detail:
        return End("crash", record.end_detail)
    if record.exit_code is not None:
        return End("crash", _describe_exit_code(record.exit_code))
    return End("crash", "killed, without a message")


def _describe_exit_code(code: int) -> str:
    """Return an exit code with the signal that it stands for, if any."""
    try:
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit code {code}"


def _cause_of_stop(record: StartRecord) -> End:
    """Return the cause of a stop with a checkpoint."""
    reason = record.end_detail
    if reason == "trigger file":
        return End("stopped", reason)
    # slurm/galen.sh sends SIGUSR2 before the job's time limit
    if reason == "time limit" or (reason == "SIGUSR2" and record.job.id is not None):
        return End("time limit", reason)
    return End("preemption signal", reason)
