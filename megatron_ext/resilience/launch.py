"""What a pretraining run says when one of its processes is lost; `galen.launch` starts them."""

from pathlib import Path

from megatron_ext.resilience import watchdog

ADVICE = (
    "`dmesg` or the job's record tells. Take fewer processes, a shorter data.seq_length,"
    " training.micro_batch_size=1, training.recompute_granularity=full or a smaller"
    " data.num_workers, and start the same command again: it goes on from the last checkpoint"
)
"""What helps against a lack of memory."""


def gone(run: Path) -> list[str]:
    """Return the description of a run's ended processes on this machine, for the user."""
    notes = [note for note in watchdog.notes(run) if watchdog.is_gone(note)]
    return [f"rank {note['rank']} (process {note['pid']})" for note in notes]
