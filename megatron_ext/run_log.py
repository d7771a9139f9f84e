"""What a run tells: the step log that all training shares, TensorBoard, and Weights & Biases. Only rank 0 has one.

Weights & Biases is configured by its own environment variables and used when WANDB_PROJECT is set; without a network,
WANDB_MODE=offline.
"""

import importlib.util
import os
import uuid
from pathlib import Path
from typing import Any

from galen.atomic import write_text
from galen.errors import UsageError
from galen.step_log import StepLog

WANDB_ID = "wandb_id.txt"


def check_wandb() -> None:
    """Check, before anything long begins, that Weights & Biases is installed where it is wanted.

    Raises:
        UsageError: it is not.
    """
    if os.environ.get("WANDB_PROJECT") and importlib.util.find_spec("wandb") is None:
        raise UsageError("WANDB_PROJECT is set, and wandb is not installed: pip install 'galen[wandb]', or unset WANDB_PROJECT")


class RunLog(StepLog):
    """The log of a run folder, its figures also as TensorBoard curves.

    Args:
        folder: run folder.
        done: steps that the checkpoint to go on from holds.
        total: steps of the whole run.
    """

    def __init__(self, folder: Path, done: int, total: int) -> None:
        super().__init__(folder / "log.jsonl", done, total)
        self._folder = folder
        self._open_board(done)
        self._wandb = self._open_wandb() if os.environ.get("WANDB_PROJECT") else None

    def _open_wandb(self) -> Any:
        """Return this run at Weights & Biases, the same one after every restart."""
        import wandb

        file = self._folder / WANDB_ID
        if not file.is_file():
            write_text(file, uuid.uuid4().hex + "\n")
        run = wandb.init(
            id=file.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(self._folder),
            name=os.environ.get("WANDB_NAME") or self._folder.name,
            config={"recipe": (self._folder / "recipe.yaml").read_text(encoding="utf-8")},
        )
        run.define_metric("*", step_metric="step")  # a run that goes on from a checkpoint logs some steps again
        return run

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
        for name, value in record.items():
            if name not in ("kind", "step") and isinstance(value, int | float):
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        for name, value in (record.get("sources") or {}).items():
            self._board.add_scalar(f"{record['kind']}/loss of {name}", value, record["step"])
        self._board.flush()
        if self._wandb is not None:
            named = {
                f"{record['kind']}/{name}": value for name, value in record.items() if name not in ("kind", "step") and value is not None
            }
            self._wandb.log({"step": record["step"], **named})

    def close(self) -> None:
        """Write what is not written yet."""
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
