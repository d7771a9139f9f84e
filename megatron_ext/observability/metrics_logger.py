"""Logs a run: the step log that all training shares, TensorBoard and Weights & Biases.

Only rank 0 has one.
"""

from pathlib import Path
from typing import Any

from galen.step_log import StepLog


class RunLog(StepLog):
    """The log of a run folder, its figures also as TensorBoard curves.

    Args:
        folder: run folder.
        done: steps that the checkpoint to go on from holds.
        total: steps of the whole run.
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

    def rewind(self, step: int) -> None:
        """Forget what came after `step`: the run goes on from there another way."""
        super().rewind(step)
        self._board.close()
        self._open_board(step)

    def _write(self, record: dict[str, Any]) -> None:
        super()._write(record)
        kind, step = record["kind"], record["step"]
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
        self._board.flush()
        if self._wandb is not None:
            self._wandb.log({"step": step, **values})

    def close(self) -> None:
        """Write what is not written yet."""
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
