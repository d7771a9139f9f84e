"""Writes a run's checkpoints atomically, asynchronously on request."""

import contextlib
import dataclasses
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue

from galen.atomic import write_text
from megatron_ext.checkpoint import checkpoint_folder, integrity, optimizer_buckets
from megatron_ext.checkpoint.optimizer_buckets import (
    DP_RESHARDABLE,
    FULLY_RESHARDABLE,
    BucketSlice,
)
from megatron_ext.checkpoint.sharded import ShardedWriter, writing
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.sections import Training
from megatron_ext.hardware import parallel_groups
from megatron_ext.resilience.signals import block_signals
from megatron_ext.training import training_state
from megatron_ext.training.training_state import Progress, TrainState

logger = logging.getLogger(__name__)

Log = Callable[[str, int, dict[str, Any]], None]
"""Takes the kind of a record, the checkpoint's iteration, and the fields."""


class Stall:
    """Seconds that training waits for a checkpoint, by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @property
    def total(self) -> float:
        """Seconds in all phases."""
        return sum(self.phases.values())

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of a block to a phase, without that of the phases inside it."""
        start = time.monotonic()
        before = self.total
        try:
            yield
        finally:
            inside = self.total - before
            seconds = time.monotonic() - start - inside
            self.phases[name] = self.phases.get(name, 0.0) + seconds

    def record(self) -> dict[str, Any]:
        """Return the fields of the run log."""
        phases = {name: round(seconds, 6) for name, seconds in self.phases.items()}
        return {"checkpoint_stall": round(sum(phases.values()), 6), "phases": phases}


class CheckpointWriter:
    """Writes, publishes and prunes checkpoints. All its methods are collective.

    Files are written and hashed in a process of their own. Without `async_save`, training waits
    for it.

    Args:
        checkpoint: the folder of all iterations.
        architecture: the model's configuration, written beside the weights.
        training: its async_save, keep_last and keep_every_n_steps.
        log: writes a record of how long training waited; None on all ranks but the first.
    """

    def __init__(
        self,
        checkpoint: Path,
        architecture: Architecture,
        training: Training,
        log: Log | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.architecture = architecture
        self.training = training
        self.is_first_rank = torch.distributed.get_rank() == 0
        self._log = log
        self._attempt = _new_attempt()
        self._sharded: dict[str, ShardedWriter] = {}
        self._slices: list[BucketSlice] | None = None
        self._slices_are_known = False
        self._queue = AsyncCallsQueue()
        self._pending: int | None = None
        self._stall = Stall()

    def save(self, progress: Progress, train_state: TrainState, optimizer_format: str) -> None:
        """Write a checkpoint under its iteration's name.

        With `async_save`, only start writing, once the previous one is finished.

        Args:
            progress: of the run.
            train_state: of this process.
            optimizer_format: `fully_reshardable` or `dp_reshardable`.
        """
        self.finish(wait=True)
        self._stall = Stall()
        self._pending = progress.iteration
        self._start(progress, train_state, optimizer_format)
        if self.training.async_save:
            self._record("checkpoint")
        else:
            self.finish(wait=True)

    def _start(self, progress: Progress, train_state: TrainState, optimizer_format: str) -> None:
        """Start the process that writes a checkpoint."""
        stall = self._stall
        folder = checkpoint_folder.partial_folder(
            self.checkpoint, progress.iteration, self._attempt
        )
        with stall.phase("gather"):
            if self.is_first_rank:
                checkpoint_folder.remove_partial(self.checkpoint)
                folder.mkdir(parents=True)
            torch.distributed.barrier()
            training_state.gather_weights(train_state.model)
            if optimizer_format == DP_RESHARDABLE and self._find_slices(train_state) is None:
                optimizer_format = FULLY_RESHARDABLE
            state = training_state.sharded_state(
                train_state, loading=False, optimizer_format=optimizer_format
            )
        with stall.phase("plan"):
            # each plans for one structure
            writer = self._sharded.setdefault(optimizer_format, ShardedWriter())
            request = writer.save(state, folder, asynchronous=True)
        with stall.phase("fork"), block_signals():
            if request.preload_fn is not None:
                request = request._replace(preload_fn=_timed(request.preload_fn, stall))
            self._queue.schedule_async_request(integrity.hash_when_written(request, folder))
        with stall.phase("publish"):
            if self.is_first_rank:
                self._write_progress(folder, progress, train_state)
                if optimizer_format == DP_RESHARDABLE:
                    optimizer_buckets.write(folder, self._slices or [])

    def _find_slices(self, train_state: TrainState) -> list[BucketSlice] | None:
        """Return the shards of the weights in the optimizer's buckets, which stay where they are.

        None if the optimizer cannot be saved as dp_reshardable.
        """
        if not self._slices_are_known:
            self._slices = training_state.find_slices(train_state)
            self._slices_are_known = True
            if self._slices is None and self.is_first_rank:
                logger.warning(
                    "the optimizer's state is too small, or of a kind, to be saved as"
                    " dp_reshardable; it is saved as fully_reshardable"
                )
        return self._slices

    def _write_progress(self, folder: Path, progress: Progress, train_state: TrainState) -> None:
        self.architecture.write(folder)
        content = {
            "progress": dataclasses.asdict(progress),
            "scheduler": train_state.scheduler.state_dict(),
            "layout": parallel_groups.saved_layout(),
        }
        write_text(folder / training_state.STATE, json.dumps(content, indent=1) + "\n")

    def finish(self, wait: bool) -> None:
        """Publish the checkpoint that is being written, if it is complete.

        Args:
            wait: wait until it is.
        """
        if self._pending is None:
            return
        with self._stall.phase("wait"), writing(self.checkpoint):
            complete = self._queue.maybe_finalize_async_calls(blocking=wait)
        if complete:
            with self._stall.phase("publish"):
                self._publish(self._pending)
            self._record("checkpoint_published" if self.training.async_save else "checkpoint")
            self._pending = None

    def _publish(self, iteration: int) -> None:
        folder = checkpoint_folder.partial_folder(self.checkpoint, iteration, self._attempt)
        torch.distributed.barrier()
        integrity.seal(folder, iteration, parallel_groups.saved_layout())
        torch.distributed.barrier()
        if self.is_first_rank:
            checkpoint_folder.publish(self.checkpoint, iteration, self._attempt)
            checkpoint_folder.prune(
                self.checkpoint, self.training.keep_last, self.training.keep_every_n_steps
            )
        torch.distributed.barrier()

    def _record(self, kind: str) -> None:
        """Log how long training has waited since the last record."""
        if self._log is not None and self._pending is not None:
            self._log(kind, self._pending, self._stall.record())
        self._stall = Stall()


def _timed(copy_to_host: Callable[[], Any], stall: Stall) -> Callable[[], Any]:
    """Return a function with its time added to a phase."""

    def timed() -> Any:
        with stall.phase("copy"):
            return copy_to_host()

    return timed


def _new_attempt() -> str:
    """Return an id of this start of the run, the same on all processes (collective).

    The processes that write an iteration may outlive a killed trainer. They must not find the files
    of the next start.
    """
    name: list[Any] = [secrets.token_hex(4)]
    torch.distributed.broadcast_object_list(name, src=0)
    return name[0]
