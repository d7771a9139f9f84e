"""One way to save and load sharded state with every supported megatron-core (0.16.1 and 0.19.x differ)."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.serialization import get_default_save_sharded_strategy
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelSaveStrategyWrapper
from torch.distributed.checkpoint.api import CheckpointException

from galen.errors import DataError
from galen.worker import follow_parent
from megatron_ext import safe_pickle
from megatron_ext.stop_requests import held_back

_OPTIONS: dict[str, Any] = {"async_strategy": "mcore"} if "async_strategy" in inspect.signature(dist_checkpointing.save).parameters else {}


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Say in one line what kept any process from writing its part of a checkpoint.

    Raises:
        DataError: most often the disk is full.
    """
    try:
        yield
    except CheckpointException as error:
        reasons = sorted({str(reason) for reason, _ in error.failures.values()})
        raise DataError(f"cannot write the checkpoint {folder}: {'; '.join(reasons)}; mend that and start the run again") from None


def save_sharded(state: dict[str, Any], folder: str | Path) -> None:
    """Write a sharded state dictionary into the empty folder `folder`, every rank its part, replicas shared out (collective)."""
    with held_back(), writing(folder):
        _collect_results()
        dist_checkpointing.save(state, str(folder), _shared_out(), **_OPTIONS)


def start_saving_sharded(state: dict[str, Any], folder: str | Path) -> Any:
    """Prepare the same for a process of its own; return the request that Megatron's AsyncCallsQueue takes (collective)."""
    with held_back():
        _collect_results()
        return dist_checkpointing.save(state, str(folder), _shared_out(), async_sharded_save=True, **_OPTIONS)


def _collect_results() -> None:
    """Start the process that collects what writers report in the core's place: the core's outlives a killed trainer, ours ends with it."""
    if filesystem_async._results_queue is None:
        manager = SyncManager(ctx=get_context("spawn"))
        manager.start(initializer=follow_parent)
        filesystem_async._results_queue = manager.Queue()


def _shared_out() -> FullyParallelSaveStrategyWrapper:
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    return FullyParallelSaveStrategyWrapper(get_default_save_sharded_strategy(), group)


def load_sharded(state: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """Fill a sharded state dictionary from a checkpoint and return it (collective); keys that it does not ask for stay.

    Raises:
        DataError: the folder is no complete torch_dist checkpoint of a readable version, or lacks what is asked for.
    """
    _check_readable(Path(folder))
    try:
        return dist_checkpointing.load(state, str(folder))
    except (CheckpointingException, FileNotFoundError, EOFError, RuntimeError) as error:
        raise DataError(f"cannot load {folder}: {type(error).__name__}: {error}") from error


def tensors_metadata(folder: str | Path) -> dict[str, Any]:
    """Return an unfilled ShardedTensor, as large as the global one, for each tensor of a checkpoint."""
    _check_readable(Path(folder))
    return dist_checkpointing.load_tensors_metadata(str(folder))


def _check_readable(folder: Path) -> None:
    """Refuse what this version cannot read, and pickles that hold what no checkpoint holds: Megatron would run them."""
    safe_pickle.check_checkpoint(folder)
    if not _OPTIONS and not (folder / "common.pt").is_file():
        raise DataError(f"{folder} was written by a newer megatron-core, which this one cannot read; use megatron-core 0.19 (Python 3.12)")
