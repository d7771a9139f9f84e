"""Saves and restores everything that a run needs to go on: weights, optimizer, schedule, progress, random states."""

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy
import torch
from megatron.core import tensor_parallel
from megatron.core.dist_checkpointing import ShardedObject
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from galen.atomic import write_text
from galen.errors import DataError
from megatron_ext import checkpoint_folder, layout
from megatron_ext.architecture import Architecture
from megatron_ext.dist_checkpoint import load_sharded, save_sharded
from megatron_ext.model import LanguageModel

STATE = "training_state.json"
# The form that lets tensor, pipeline and data parallelism change between save and load.
_METADATA = {"distrib_optim_sharding_type": "fully_reshardable", "singleton_local_shards": False, "chained_optim_avoid_prefix": True}


@dataclasses.dataclass(kw_only=True)
class Progress:
    """How far a run is."""

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    """Tokens that took part in the loss."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""


def load_weights(model: LanguageModel, checkpoint: str | Path) -> None:
    """Fill the model's weights, and nothing else, from the newest iteration of a checkpoint (collective)."""
    load_weights_from(model, checkpoint_folder.newest(checkpoint))


def load_weights_from(model: LanguageModel, folder: str | Path) -> None:
    """Fill the model's weights, and nothing else, from the folder of one iteration (collective)."""
    weights = _without_extra_state(model.sharded_state_dict(metadata=dict(_METADATA)))
    model.load_state_dict(load_sharded(weights, folder), strict=False)


def save(
    checkpoint: str | Path,
    progress: Progress,
    architecture: Architecture,
    model: DistributedDataParallel,
    optimizer: MegatronOptimizer,
    scheduler: OptimizerParamScheduler,
    keep: int,
) -> None:
    """Write a checkpoint of the run under its iteration's name, whole or not at all (collective)."""
    rank = torch.distributed.get_rank()
    with checkpoint_folder.new_iteration(checkpoint, progress.iteration, writer=rank == 0) as folder:
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed run left behind
            folder.mkdir(parents=True)
        torch.distributed.barrier()
        save_sharded(_sharded_state(model, optimizer, loading=False), folder)
        if rank == 0:
            architecture.write(folder)
            state = {"progress": dataclasses.asdict(progress), "scheduler": scheduler.state_dict(), "layout": layout.sizes()}
            write_text(folder / STATE, json.dumps(state, indent=1) + "\n")
        torch.distributed.barrier()
    if rank == 0:
        checkpoint_folder.prune(checkpoint, keep)
    torch.distributed.barrier()


def load(
    checkpoint: str | Path, model: DistributedDataParallel, optimizer: MegatronOptimizer, scheduler: OptimizerParamScheduler
) -> Progress:
    """Restore a run from the newest iteration of its checkpoint and return how far it was (collective).

    The layout may have changed since; random states are restored only into the layout that saved them.

    Raises:
        DataError: the checkpoint is incomplete or was written by no training run.
    """
    folder = checkpoint_folder.newest(checkpoint)
    try:
        saved = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot go on from {folder}: {STATE}: {error}") from None
    same_layout = saved["layout"] == layout.sizes()
    with torch.no_grad():
        state = load_sharded(_sharded_state(model, optimizer, loading=True, with_random=same_layout), folder)
        model.module.load_state_dict(state["model"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    if same_layout:
        _restore_random(state["random"])
    return Progress(**saved["progress"])


def _sharded_state(model: DistributedDataParallel, optimizer: MegatronOptimizer, loading: bool, with_random: bool = True) -> dict[str, Any]:
    weights = model.module.sharded_state_dict(metadata=dict(_METADATA))
    state = {"model": weights, "optimizer": optimizer.sharded_state_dict(weights, is_loading=loading, metadata=dict(_METADATA))}
    if with_random:
        state["random"] = _sharded_random()
    return state


def _without_extra_state(weights: dict[str, Any]) -> dict[str, Any]:
    """Leave out Transformer Engine's `_extra_state`, the scaling history of FP8: an imported checkpoint has none."""
    return {name: value for name, value in weights.items() if not name.endswith("_extra_state")}


def _sharded_random() -> ShardedObject:
    """Return this rank's random states, placed by its position in the layout."""
    states = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(),
        "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }
    return ShardedObject("random_states", states, tuple(layout.sizes()), tuple(layout.ranks()), replica_id=0)


def _restore_random(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state(states["device"])
    tensor_parallel.get_cuda_rng_tracker().set_states(states["tracker"])
