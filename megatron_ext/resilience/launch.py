"""Messages of a pretraining run that lost a process; `galen.launch` starts the processes."""

import time
from pathlib import Path
from typing import Any

from megatron_ext.resilience import watchdog

ADVICE = (
    "see `dmesg` or the job's record. Use fewer processes, a shorter data.seq_length,"
    " training.micro_batch_size=1, training.recompute_granularity=full or a smaller"
    " data.num_workers, and run the same command again to resume from the last checkpoint"
)
"""How to reduce memory use."""
_EXIT_SECONDS = 2.0
"""Seconds that a process may take from closing its connections to its end."""


def dead_processes(run: Path) -> list[str]:
    """Return the run's ended processes on this machine, described for the user.

    A killed process closes its connections, by which the others notice it, before it has ended.
    """
    deadline = time.monotonic() + _EXIT_SECONDS
    dead: list[Any] = []
    while not dead and time.monotonic() < deadline:
        time.sleep(0.05)
        dead = [one for one in watchdog.heartbeats(run) if watchdog.is_dead(one)]
    return [f"rank {one['rank']} (process {one['pid']})" for one in dead]
