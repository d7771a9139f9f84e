"""Writes a run's checkpoints atomically, if wanted in a process of its own during training."""

import dataclasses
import json
import secrets
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue

from galen.atomic import write_text
from megatron_ext.checkpoint import folder as checkpoint_folder
from megatron_ext.checkpoint import integrity
from megatron_ext.checkpoint.sharded import ShardedWriter, writing
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.sections import Training
from megatron_ext.hardware import parallel_groups
from megatron_ext.training import state as training_state
from megatron_ext.training.state import Progress, Run


class CheckpointWriter:
    """All its methods are collective.

    Args:
        checkpoint: the folder of all iterations.
        architecture: the model's shape, written beside the weights.
        training: its async_save, keep_last and keep_every_n_steps.
    """

    def __init__(self, checkpoint: Path, architecture: Architecture, training: Training) -> None:
        self.checkpoint, self.architecture, self.training = checkpoint, architecture, training
        self.first = torch.distributed.get_rank() == 0
        self._attempt = _new_attempt()
        self._sharded, self._queue = ShardedWriter(), AsyncCallsQueue()
        self._pending: int | None = None

    def save(self, progress: Progress, run: Run) -> None:
        """Write a checkpoint under its iteration's name.

        With `async_save`, only start writing, once the previous one is finished.
        """
        self.finish(wait=True)
        iteration = progress.iteration
        folder = checkpoint_folder.partial_folder(self.checkpoint, iteration, self._attempt)
        if self.first:
            checkpoint_folder.remove_partial(self.checkpoint)
            folder.mkdir(parents=True)
        torch.distributed.barrier()
        training_state.gather_weights(run.model)
        state = training_state.sharded_state(run, loading=False)
        request = self._sharded.save(state, folder, aside=self.training.async_save)
        if request is not None:
            self._queue.schedule_async_request(request)
        if self.first:
            self.architecture.write(folder)
            written = {
                "progress": dataclasses.asdict(progress),
                "scheduler": run.scheduler.state_dict(),
                "layout": parallel_groups.sizes(),
            }
            write_text(folder / training_state.STATE, json.dumps(written, indent=1) + "\n")
        self._pending = iteration
        if not self.training.async_save:
            self._publish()

    def finish(self, wait: bool) -> None:
        """Rename a checkpoint that is being written once it is complete.

        With `wait`, wait for that; else only check whether it is.
        """
        if self._pending is None:
            return
        with writing(self.checkpoint):
            whole = self._queue.maybe_finalize_async_calls(blocking=wait)
        if whole:
            self._publish()

    def _publish(self) -> None:
        assert self._pending is not None
        folder = checkpoint_folder.partial_folder(self.checkpoint, self._pending, self._attempt)
        torch.distributed.barrier()
        integrity.seal(folder, self._pending, parallel_groups.sizes())
        torch.distributed.barrier()
        if self.first:
            checkpoint_folder.publish(self.checkpoint, self._pending, self._attempt)
            checkpoint_folder.prune(
                self.checkpoint, self.training.keep_last, self.training.keep_every_n_steps
            )
        torch.distributed.barrier()
        self._pending = None


def _new_attempt() -> str:
    """Return a name for this start of the run, the same on all its processes (collective).

    The processes that write an iteration may outlive a trainer that is killed. They must not find
    the files of the next start.
    """
    name: list[Any] = [secrets.token_hex(4)]
    torch.distributed.broadcast_object_list(name, src=0)
    return name[0]
