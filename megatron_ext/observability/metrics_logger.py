"""Logs a run: the step log that all training shares, TensorBoard and Weights & Biases.

Only rank 0 has one.
"""

import logging
from pathlib import Path
from typing import Any

from galen.step_log import StepLog


class RunLog(StepLog):
    """The log of a run folder, also as TensorBoard curves.

    Args:
        folder: run folder.
        done: step of the checkpoint that the run resumes from.
        total: last step of the run.
        wandb: the run at Weights & Biases, None for none.
    """

    def __init__(self, folder: Path, done: int, total: int, wandb: Any = None) -> None:
        super().__init__(folder / "log.jsonl", done, total)
        self._folder = folder
        self._wandb = wandb
        self._open_board(done)

    def _open_board(self, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=done + 1)

    def checkpoint(self, kind: str, step: int, record: dict[str, Any]) -> None:
        """Record a checkpoint of a step, and how many seconds training waited for it.

        Args:
            kind: `checkpoint`, or `checkpoint_published` when an asynchronous one is complete.
            step: of the checkpoint.
            record: checkpoint_stall, the seconds; phases, their division.
        """
        self._write({"kind": kind, "step": step, **record})
        longest = max(record["phases"], key=record["phases"].__getitem__)
        values = [
            kind.replace("_", " "),
            f"training waited {record['checkpoint_stall']:.2f} s",
            f"longest phase: {longest}",
        ]
        self._log_line(logging.INFO, step, values)

    def rewind(self, step: int) -> None:
        """Remove the records after `step`, to which the run was rolled back."""
        super().rewind(step)
        self._board.close()
        self._open_board(step)

    def _write(self, record: dict[str, Any]) -> None:
        super()._write(record)
        kind = record["kind"]
        step = record["step"]
        values = {
            f"{kind}/{name}": value
            for name, value in record.items()
            if name not in ("kind", "step") and value is not None
        }
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)
        for source, loss in record.get("sources", {}).items():
            self._board.add_scalar(f"{kind}/loss of {source}", loss, step)
        for phase, seconds in record.get("timers", {}).items():
            self._board.add_scalar(f"timers/{phase}", seconds, step)
        self._board.flush()
        if self._wandb is not None:
            self._wandb.log({"step": step, **values})

    def close(self) -> None:
        """Flush and close all outputs."""
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
