"""One way to save and load sharded state with every supported megatron-core (0.16.1 and 0.19.x differ)."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.serialization import get_default_load_sharded_strategy, get_default_save_sharded_strategy
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.fully_parallel import FullyParallelLoadStrategyWrapper, FullyParallelSaveStrategyWrapper
from torch.distributed.checkpoint.api import CheckpointException

from galen.errors import DataError, one_line
from galen.worker import follow_parent
from megatron_ext import safe_pickle
from megatron_ext.stop_requests import held_back

_NEWER = "async_strategy" in inspect.signature(dist_checkpointing.save).parameters
"""Whether this is megatron-core 0.19."""
_OPTIONS: dict[str, Any] = {"async_strategy": "mcore"} if _NEWER else {}  # its default needs a package of its own


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


class ShardedWriter:
    """Writes sharded state dictionaries of one structure, every rank its part, replicas shared out. All its methods are collective.

    Who writes what is settled and checked at the first one: each rank would else hear of every tensor of all others again and again.
    """

    def __init__(self) -> None:
        self._strategy = FullyParallelSaveStrategyWrapper(get_default_save_sharded_strategy(), _replicas(), do_cache_distribution=True)

    def save(self, state: dict[str, Any], folder: str | Path, aside: bool = False) -> Any:
        """Write into the empty folder `folder`; `aside`, prepare that for a process of its own.

        Returns:
            `aside`, the request that Megatron's AsyncCallsQueue takes, else None.
        """
        with held_back(), writing(folder):
            _collect_results()
            new = self._strategy.cached_distribution is None
            return dist_checkpointing.save(
                state, str(folder), self._strategy, validate_access_integrity=new, async_sharded_save=aside, **_OPTIONS
            )


def _collect_results() -> None:
    """Start the process that collects what writers report in the core's place: the core's outlives a killed trainer, ours ends with it."""
    if filesystem_async._results_queue is None:
        manager = SyncManager(ctx=get_context("spawn"))
        manager.start(initializer=follow_parent)
        filesystem_async._results_queue = manager.Queue()


def _replicas() -> torch.distributed.ProcessGroup:
    return parallel_state.get_data_parallel_group(with_context_parallel=True)


def load_sharded(state: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """Fill a sharded state dictionary from a checkpoint and return it (collective); keys that it does not ask for stay.

    Each replica reads a part of what all of them need and gets the rest from the others.

    Raises:
        DataError: the folder is no complete torch_dist checkpoint of a readable version, or lacks what is asked for.
    """
    _check_readable(Path(folder))
    try:
        strategy = FullyParallelLoadStrategyWrapper(get_default_load_sharded_strategy(str(folder)), _replicas())
        return dist_checkpointing.load(state, str(folder), strategy)
    except CheckpointException as error:
        reasons = sorted({one_line(reason) for reason, _ in error.failures.values()})
        raise DataError(f"cannot load {folder}: {'; '.join(reasons)[:2000]}") from error
    except (CheckpointingException, OSError, EOFError, RuntimeError) as error:
        raise DataError(f"cannot load {folder}: {type(error).__name__}: {one_line(error)}") from error


def _check_readable(folder: Path) -> None:
    """Refuse what this version cannot read, and pickles that hold what no checkpoint holds: Megatron would run them (collective).

    One process looks for all, since there are pickles of each process that wrote the checkpoint.
    """
    wrong: list[str | None] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            safe_pickle.check_checkpoint(folder)
            if not _NEWER and not (folder / "common.pt").is_file():
                wrong = [f"{folder} was written by a newer megatron-core, which this one cannot read; use megatron-core 0.19 (Python 3.12)"]
        except (DataError, OSError) as error:
            wrong = [str(error)]
    torch.distributed.broadcast_object_list(wrong, src=0)
    if wrong[0]:
        raise DataError(wrong[0])
