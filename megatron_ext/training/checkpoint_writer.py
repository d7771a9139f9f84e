"""Writes a run's checkpoints atomically, asynchronously on request."""

import dataclasses
import json
import secrets
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue

from galen.atomic import write_text
from megatron_ext.checkpoint import checkpoint_folder, integrity
from megatron_ext.checkpoint.sharded import ShardedWriter, writing
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.sections import Training
from megatron_ext.hardware import parallel_groups
from megatron_ext.training import training_state
from megatron_ext.training.training_state import Progress, TrainState


class CheckpointWriter:
    """Writes, publishes and prunes checkpoints. All its methods are collective.

    Args:
        checkpoint: the folder of all iterations.
        architecture: the model's configuration, written beside the weights.
        training: its async_save, keep_last and keep_every_n_steps.
    """

    def __init__(self, checkpoint: Path, architecture: Architecture, training: Training) -> None:
        self.checkpoint = checkpoint
        self.architecture = architecture
        self.training = training
        self.is_first_rank = torch.distributed.get_rank() == 0
        self._attempt = _new_attempt()
        self._sharded = ShardedWriter()
        self._queue = AsyncCallsQueue()
        self._pending: int | None = None

    def save(self, progress: Progress, train_state: TrainState) -> None:
        """Write a checkpoint under its iteration's name.

        With `async_save`, only start writing, once the previous one is finished.
        """
        self.finish(wait=True)
        iteration = progress.iteration
        folder = checkpoint_folder.partial_folder(self.checkpoint, iteration, self._attempt)
        if self.is_first_rank:
            checkpoint_folder.remove_partial(self.checkpoint)
            folder.mkdir(parents=True)
        torch.distributed.barrier()
        training_state.gather_weights(train_state.model)
        state = training_state.sharded_state(train_state, loading=False)
        request = self._sharded.save(state, folder, asynchronous=self.training.async_save)
        if request is not None:
            self._queue.schedule_async_request(request)
        if self.is_first_rank:
            self.architecture.write(folder)
            content = {
                "progress": dataclasses.asdict(progress),
                "scheduler": train_state.scheduler.state_dict(),
                "layout": parallel_groups.parallel_sizes(),
            }
            write_text(folder / training_state.STATE, json.dumps(content, indent=1) + "\n")
        self._pending = iteration
        if not self.training.async_save:
            self._publish()

    def finish(self, wait: bool) -> None:
        """Publish the checkpoint that is being written, if it is complete.

        Args:
            wait: wait until it is.
        """
        if self._pending is None:
            return
        with writing(self.checkpoint):
            complete = self._queue.maybe_finalize_async_calls(blocking=wait)
        if complete:
            self._publish()

    def _publish(self) -> None:
        assert self._pending is not None
        folder = checkpoint_folder.partial_folder(self.checkpoint, self._pending, self._attempt)
        torch.distributed.barrier()
        integrity.seal(folder, self._pending, parallel_groups.parallel_sizes())
        torch.distributed.barrier()
        if self.is_first_rank:
            checkpoint_folder.publish(self.checkpoint, self._pending, self._attempt)
            checkpoint_folder.prune(
                self.checkpoint, self.training.keep_last, self.training.keep_every_n_steps
            )
        torch.distributed.barrier()
        self._pending = None


def _new_attempt() -> str:
    """Return an id of this start of the run, the same on all processes (collective).

    The processes that write an iteration may outlive a killed trainer. They must not find the files
    of the next start.
    """
    name: list[Any] = [secrets.token_hex(4)]
    torch.distributed.broadcast_object_list(name, src=0)
    return name[0]
