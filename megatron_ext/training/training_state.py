"""The state that a run resumes from: weights, optimizer, schedule, progress and random states.

`checkpoint_writer` saves it; it is restored here.
"""

import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.dist_checkpointing import ShardedObject, ShardedTensor
from megatron.core.dist_checkpointing.utils import force_all_tensors_to_non_fp8
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.transformer import TransformerConfig

from galen import json_file, random_states
from galen.errors import DataError, one_line
from megatron_ext.checkpoint import checkpoint_folder, fp8_history
from megatron_ext.checkpoint.optimizer_buckets import (
    DP_RESHARDABLE,
    FULLY_RESHARDABLE,
    BucketSlice,
)
from megatron_ext.checkpoint.sharded import load_sharded, stored_slices
from megatron_ext.hardware import parallel_groups
from megatron_ext.model.build import LanguageModel
from megatron_ext.training import bucket_slices
from megatron_ext.training.optimizer import complete_groups, synchronize_offloaded

STATE = "training_state.json"
_EXTRA_STATE = re.compile(r"(^|\.)_extra_state\d*$")
"""Names of Transformer Engine's FP8 states in a state dictionary; a grouped GEMM has one for each
expert."""
_METADATA = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Counters of a run."""

    iteration: int = 0
    consumed_samples: int = 0
    """Samples of the steps so far; the schedules of batch size and learning rate depend on it."""
    skipped_samples: int = 0
    """Samples that were skipped after a loss spike."""
    consumed_tokens: int = 0
    """Tokens in the loss."""
    skipped_steps: int = 0
    """Steps without an update, and steps undone by a rollback."""
    recent_losses: list[float] = dataclasses.field(default_factory=list)
    """Window of the loss spike detector."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""

    @property
    def next_sample(self) -> int:
        """Index of the next sample in the data."""
        return self.consumed_samples + self.skipped_samples


@dataclasses.dataclass(kw_only=True)
class TrainState:
    """Model, optimizer and schedule of this process."""

    model: list[DistributedDataParallel]
    """Model chunks: one, or several under an interleaved pipeline."""
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler


def load_weights(model: LanguageModel | list[LanguageModel], checkpoint: str | Path) -> None:
    """Fill only the model's weights from the newest iteration of a checkpoint (collective)."""
    load_weights_from(model, checkpoint_folder.newest(checkpoint))


def load_weights_from(model: LanguageModel | list[LanguageModel], folder: str | Path) -> None:
    """Fill the model's weights, and nothing else, from the folder of one iteration (collective)."""
    chunks = model if isinstance(model, list) else [model]
    requested = {
        name: _without_extra_state(weights) for name, weights in _sharded_weights(chunks).items()
    }
    # megatron-core 0.19 would read into FP8, and the optimizer's copy be made of rounded weights
    force_all_tensors_to_non_fp8(requested)
    keys = {name: set(weights) for name, weights in requested.items()}
    loaded = load_sharded(requested, folder)
    for name, chunk in zip(_chunk_names(chunks), chunks, strict=True):
        # a file may add some for a module to unpickle
        weights = {key: value for key, value in loaded[name].items() if key in keys[name]}
        chunk.load_state_dict(weights, strict=False)
        for key, weight in chunk.named_parameters():
            # of a weight kept in FP8, the optimizer's initial copy is still random
            if hasattr(weight, "get_high_precision_init_val"):
                weight.get_high_precision_init_val().copy_(loaded[name][key])


def load(folder: Path, train_state: TrainState) -> Progress:
    """Restore a run from the folder of one iteration and return its progress (collective).

    The layout may have changed since; random states are restored only into the layout that saved
    them.

    Raises:
        DataError: the checkpoint is incomplete or was written by no training run.
    """
    saved = _saved(folder)
    same_layout = saved["layout"] == parallel_groups.saved_layout()
    slices = stored_slices(folder)
    optimizer_format = DP_RESHARDABLE
    if slices is None or slices != find_slices(train_state):
        optimizer_format = FULLY_RESHARDABLE
    in_buckets = optimizer_format == DP_RESHARDABLE
    with torch.no_grad():
        requested = sharded_state(
            train_state,
            loading=True,
            optimizer_format=optimizer_format,
            with_random=same_layout,
        )
        state = load_sharded(requested, folder, None if in_buckets else slices)
        _repickle_fp8_history(state, folder)
        for name, chunk in zip(_chunk_names(train_state.model), train_state.model, strict=True):
            chunk.module.load_state_dict(state[name], strict=False)
        if in_buckets:
            _restore_steps(state["optimizer"])
        train_state.optimizer.load_state_dict(state["optimizer"])
        synchronize_offloaded(train_state.optimizer)
        complete_groups(train_state.optimizer)
    train_state.scheduler.num_steps = 0  # loading adds to it
    try:
        train_state.scheduler.load_state_dict(saved["scheduler"])
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise DataError(
            f"cannot resume from {folder / STATE}: scheduler: {one_line(error)}"
        ) from None
    if same_layout:
        _restore_random(state["random"], folder)
    return Progress(**saved["progress"])


def _saved(folder: Path) -> dict[str, Any]:
    """Return the content of the checkpoint writer's file beside the weights.

    Raises:
        DataError: it is missing, damaged, or of another iteration.
    """
    saved = json_file.read_object(folder / STATE)
    progress = saved.get("progress")
    fields = {field.name: field.type for field in dataclasses.fields(Progress)}
    if not isinstance(progress, dict):
        progress = {}
    unknown = sorted(set(progress) - set(fields))
    if unknown:
        raise DataError(
            f"cannot resume from {folder}: {STATE} has the unknown field {unknown[0]!r}; resume"
            " with the version of Galen that wrote it, or remove that folder"
        )
    intact = (
        "iteration" in progress
        and all(_is_a(value, fields[name]) for name, value in progress.items())
        and isinstance(saved.get("layout"), list)
        and isinstance(saved.get("scheduler"), dict)
    )
    if intact:
        iteration = progress["iteration"]
        intact = folder == checkpoint_folder.iteration_folder(folder.parent, iteration)
    if not intact:
        raise DataError(
            f"cannot resume from {folder}: {STATE} was changed since the run wrote it; copy it"
            " again, or remove that folder"
        )
    return saved


def _is_a(value: Any, field_type: Any) -> bool:
    """Return whether a JSON value has the type of a field of `Progress`."""
    if field_type is int:
        return type(value) is int and value >= 0
    numbers = value if field_type == list[float] else [value]
    return isinstance(numbers, list) and all(type(number) in (int, float) for number in numbers)


def gather_weights(model: Sequence[DistributedDataParallel]) -> None:
    """Complete the weights of each replica, as a checkpoint needs them (collective).

    With overlap_param_gather an optimizer step updates only a replica's own shard; the others
    arrive in the next forward pass.
    """
    for chunk in model:
        if chunk.ddp_config.overlap_param_gather:
            for group in chunk.bucket_groups + chunk.expert_parallel_bucket_groups:
                group.finish_param_sync(skip_next_bucket_dispatch=True)


def sharded_state(
    train_state: TrainState, loading: bool, optimizer_format: str, with_random: bool = True
) -> dict[str, Any]:
    """Return this process's sharded state, each shard with its offset in the global tensor.

    Args:
        train_state: of this process.
        loading: whether to load into it.
        optimizer_format: `fully_reshardable` gathers the optimizer's state of all data-parallel
            replicas (collective); `dp_reshardable` takes that of this process as it is.
        with_random: include the random states.
    """
    weights = _sharded_weights([chunk.module for chunk in train_state.model])
    optimizer = train_state.optimizer.sharded_state_dict(
        weights if len(train_state.model) > 1 else weights["model"],
        is_loading=loading,
        metadata={**_METADATA, "distrib_optim_sharding_type": optimizer_format},
    )
    if optimizer_format == DP_RESHARDABLE:
        _clear_padding(optimizer)
    if loading and not _keeps_fp8_history(train_state.model[0].config):
        weights = {name: _without_extra_state(chunk) for name, chunk in weights.items()}
    state = {**weights, "optimizer": optimizer}
    if with_random:
        state["random"] = _sharded_random()
    return state


def find_slices(train_state: TrainState) -> list[BucketSlice] | None:
    """Return the shards of the weights in the optimizer's buckets (collective).

    None if it cannot be saved in the format `dp_reshardable`.
    """
    weights = _sharded_weights([chunk.module for chunk in train_state.model])
    return bucket_slices.find(train_state.optimizer, weights)


def _bucket_parts(optimizer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of the buckets in the optimizer's state."""
    for one in _chained_states(optimizer):
        for index, by_dtype in one["param_state"].items():
            if isinstance(index, int):
                for buckets in by_dtype.values():
                    yield from itertools.chain.from_iterable(buckets)


def _chained_states(optimizer: dict[Any, Any]) -> list[dict[str, Any]]:
    """Return the states of the optimizers that Megatron chains into one, or the one."""
    return [optimizer[index] for index in optimizer if isinstance(index, int)] or [optimizer]


def _clear_padding(optimizer: dict[str, Any]) -> None:
    """Set the numbers between the weights to 0, so that equal states give equal files.

    The core saves uninitialized memory there. Before the bucket of a shared embedding, these also
    extend beyond the bucket if a weight ends at no multiple of 64 numbers (0.16.1 and 0.19.2).
    """
    for part in _bucket_parts(optimizer):
        if not part["padding"].unwrap():
            continue
        for name, tensor in part.items():
            if isinstance(tensor, ShardedTensor):
                end = tensor.global_shape[0] - tensor.global_offset[0]
                data = tensor.data[:end].zero_()
                part[name] = dataclasses.replace(tensor, data=data, local_shape=tuple(data.shape))


def _restore_steps(optimizer: dict[str, Any]) -> None:
    """Put the loaded step count of PyTorch's Adam into each part of the buckets.

    The core would overwrite it with the one from before the load.
    """
    step = _chained_states(optimizer)[0]["optimizer"]["param_groups"][0].get("step")
    if step is None:
        return
    for part in _bucket_parts(optimizer):
        if "step" in part:
            part["step"] = torch.tensor(float(step))


def _chunk_names(chunks: Sequence[Any]) -> list[str]:
    """Return the keys of the model chunks in a state dictionary, Megatron-LM's."""
    return ["model"] if len(chunks) == 1 else [f"model{number}" for number in range(len(chunks))]


def _sharded_weights(chunks: Sequence[LanguageModel]) -> dict[str, Any]:
    """Return the sharded weights of each model chunk.

    In the files they have the names of the complete model, for any chunks.
    """
    return {
        name: chunk.sharded_state_dict(metadata=dict(_METADATA))
        for name, chunk in zip(_chunk_names(chunks), chunks, strict=True)
    }


def _keeps_fp8_history(config: TransformerConfig) -> bool:
    """Return whether a step depends on the scales of earlier steps.

    Otherwise the FP8 state that Transformer Engine stores is empty.
    """
    return config.fp8 is not None and config.fp8_recipe == "delayed"


def _repickle_fp8_history(state: dict[str, Any], folder: Path) -> None:
    """Replace a file's pickle of Transformer Engine's scales, which it unpickles, by one of ours.

    Transformer Engine refuses to unpickle unless it is allowed to; it is allowed for what was read
    and pickled here.
    """
    for chunk_name, weights in state.items():
        if not chunk_name.startswith("model"):
            continue
        for name in filter(_EXTRA_STATE.search, list(weights)):
            history = weights[name]
            if history is None or (type(history) is torch.Tensor and not history.numel()):
                continue
            if type(history) is not torch.Tensor or history.dtype != torch.uint8:
                raise DataError(
                    f"{name} in {folder} is damaged: it holds a {type(history).__name__}, which is"
                    " no history of FP8"
                )
            ours = fp8_history.repickle(history.cpu().numpy().tobytes(), f"{name} in {folder}")
            weights[name] = torch.frombuffer(bytearray(ours), dtype=torch.uint8)
            os.environ["NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE"] = "1"


def _without_extra_state(weights: dict[str, Any]) -> dict[str, Any]:
    """Leave out Transformer Engine's `_extra_state`, the scaling history of FP8.

    A checkpoint of PyTorch's layers has none.
    """
    return {name: value for name, value in weights.items() if not _EXTRA_STATE.search(name)}


def _sharded_random() -> ShardedObject:
    """Return this rank's random states, sharded by its ranks in the layout."""
    states = {
        **random_states.get(),
        "device": torch.cuda.get_rng_state(),
        "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }
    return ShardedObject(
        "random_states",
        states,
        tuple(parallel_groups.parallel_sizes()),
        tuple(parallel_groups.parallel_ranks()),
        replica_id=0,
    )


def _restore_random(states: Any, folder: Path) -> None:
    with random_states.restoring(folder):
        random_states.restore(states)
        torch.cuda.set_rng_state(states["device"])
        tensor_parallel.get_cuda_rng_tracker().set_states(states["tracker"])
