"""Saves and loads sharded state with every supported megatron-core.

Versions 0.16.1 and 0.19.x differ.
"""

import inspect
import pickle
import queue
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import merge
from megatron.core.dist_checkpointing.mapping import apply_factory_merges
from megatron.core.dist_checkpointing.serialization import get_default_save_sharded_strategy
from megatron.core.dist_checkpointing.state_dict_utils import load_preprocess
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelLoadStrategyWrapper,
    FullyParallelSaveStrategyWrapper,
)
from megatron.core.dist_checkpointing.strategies.torch import TorchDistLoadShardedStrategy
from megatron.core.dist_checkpointing.utils import (
    extract_sharded_base,
    force_all_tensors_to_non_fp8,
)
from megatron.core.dist_checkpointing.validation import (
    StrictHandling,
    determine_global_metadata,
    validate_integrity_and_strict_load,
)
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from galen import json_file
from galen.errors import DataError, one_line
from megatron_ext.checkpoint import optimizer_buckets, pickle_values, safe_pickle, torch_dist
from megatron_ext.checkpoint.checked_reader import CheckedReader, used_by_megatron
from megatron_ext.checkpoint.optimizer_buckets import BucketSlice, ModelSpace, groups_of_layout
from megatron_ext.checkpoint.torch_dist import TorchDist
from megatron_ext.resilience.signals import block_signals

_NEWER = "async_strategy" in inspect.signature(dist_checkpointing.save).parameters
"""Whether this is megatron-core 0.19."""
# its default needs a package of its own
_OPTIONS: dict[str, Any] = {"async_strategy": "mcore"} if _NEWER else {}


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Report in one line why a process could not write its shards of a checkpoint.

    Raises:
        DataError: most often the disk is full, or a process that writes was killed.
    """
    try:
        yield
    except CheckpointException as error:
        raise DataError(f"cannot write the checkpoint {folder}: {_failure(error)}") from None


_FOR_MEMORY = "most likely for lack of memory: see `dmesg`, and run the same command again"
_NO_REPORT = "results_queue should not be empty"
"""Error of Megatron Core when a writer ended without a report."""


def _failure(error: CheckpointException) -> str:
    """Return why a save failed; the first rank alone knows the reasons of all."""
    killed = []
    reasons = set()
    for rank, (reason, _) in sorted(error.failures.items()):
        if str(reason) == _NO_REPORT:
            killed.append(str(rank))
        else:
            reasons.add(_in_words(str(reason)))
    if reasons:
        return f"{'; '.join(sorted(reasons))}; fix that and run the same command again"
    if killed:
        return f"the writing process of rank {', '.join(killed)} was killed, {_FOR_MEMORY}"
    return "another process failed, see the message of rank 0"


def _in_words(reason: str) -> str:
    """Return a reason to fail with what PyTorch's writer of archives says about a full disk."""
    if "unexpected pos" in reason:
        return f"the disk is full, or a file could not be written to its end ({reason})"
    return reason


class ShardedWriter:
    """Writes sharded state dictionaries of one structure, each shard by one of its replicas.

    All its methods are collective. The distribution of shards among ranks is computed and validated
    at the first save and then cached.
    """

    def __init__(self) -> None:
        self._strategy = FullyParallelSaveStrategyWrapper(
            get_default_save_sharded_strategy(), _replicas(), do_cache_distribution=True
        )

    def save(self, state: dict[str, Any], folder: str | Path, asynchronous: bool = False) -> Any:
        """Write into the empty folder `folder`, or prepare an asynchronous save.

        Returns:
            The request for Megatron's AsyncCallsQueue if `asynchronous`, else None.
        """
        with block_signals(), writing(folder):
            if not isinstance(filesystem_async._results_queue, _WriteResults):
                filesystem_async._results_queue = _WriteResults()
            first_save = self._strategy.cached_distribution is None
            return dist_checkpointing.save(
                state,
                str(folder),
                self._strategy,
                validate_access_integrity=first_save,
                async_sharded_save=asynchronous,
                **_OPTIONS,
            )


class _WriteResults:
    """A queue for the results of one writer, which was forked from this process.

    The core's is a process of its own, which takes seconds to start and outlives a killed trainer;
    this is a file without a name that both processes have open.
    """

    _HEADER = 8
    """Bytes of the length of the results, 0 until they are complete."""

    def __init__(self) -> None:
        self._descriptor, path = tempfile.mkstemp(prefix="galen-")
        Path(path).unlink()

    def put(self, results: Any) -> None:
        """Store the results."""
        content = pickle.dumps(results)
        with self._open("r+b") as file:
            file.seek(self._HEADER)
            file.write(content)
        self._set_length(len(content))

    def get_nowait(self) -> Any:
        """Return the results and remove them.

        Raises:
            queue.Empty: there are none.
        """
        with self._open("rb") as file:
            file.seek(0)
            length = int.from_bytes(file.read(self._HEADER), "little")
            content = file.read(length)
        if not length:
            raise queue.Empty
        self._set_length(0)
        return pickle.loads(content)

    def _set_length(self, length: int) -> None:
        with self._open("r+b") as file:
            file.seek(0)
            file.write(length.to_bytes(self._HEADER, "little"))

    def _open(self, mode: str) -> IO[bytes]:
        """Return the file with nothing in its buffer; its owner remains this object."""
        return open(self._descriptor, mode, closefd=False)


def _replicas() -> torch.distributed.ProcessGroup:
    return parallel_state.get_data_parallel_group(with_context_parallel=True)


def stored_slices(folder: Path) -> list[BucketSlice] | None:
    """Return the slices of the optimizer's buckets in a checkpoint, None if it has none.

    One process reads them for all (collective).

    Raises:
        DataError: the file is damaged.
    """
    result: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            result[1] = optimizer_buckets.read(folder)
        except DataError as error:
            result[0] = str(error)
    torch.distributed.broadcast_object_list(result, src=0)
    if result[0]:
        raise DataError(result[0])
    return result[1]


def load_sharded(
    state: dict[str, Any], folder: str | Path, slices: list[BucketSlice] | None = None
) -> dict[str, Any]:
    """Fill a sharded state dictionary from a checkpoint and return it (collective).

    Keys that it does not request are kept. With `slices`, the optimizer's state, stored in buckets,
    is loaded as that of a `fully_reshardable` checkpoint.

    Each replica reads a part of the data that all need and gets the rest from the others. These are
    the steps of Megatron's `dist_checkpointing.load`, which would unpickle the files itself; here
    only `safe_pickle` reads them.

    Raises:
        DataError: the folder is no complete torch_dist checkpoint of a readable version, or lacks
            requested tensors.
    """
    folder = Path(folder)
    metadata = _checked(folder)
    model_space = None
    if slices is not None:
        model_space = ModelSpace(TorchDist(folder, metadata=metadata), slices)
    reader = CheckedReader(folder, metadata, model_space)
    try:
        strategy = FullyParallelLoadStrategyWrapper(TorchDistLoadShardedStrategy(), _replicas())
        if not getattr(strategy, "stream_ckpt_dequant", False):
            force_all_tensors_to_non_fp8(state)
        chained = sorted(key for key in state.get("optimizer", ()) if isinstance(key, int))
        state, nonpersistent, factories = load_preprocess(state)
        common = torch_dist.common_state(folder, metadata)
        if model_space is not None:
            common = {**common, "optimizer": model_space.common()}
        common = pickle_values.real(common, folder, inert=True)
        if "optimizer" in state and type(common.get("optimizer")) is dict:
            common["optimizer"] = groups_of_layout(common["optimizer"], chained)
        loaded = merge(common, nonpersistent)
        requested, _ = extract_sharded_base(state)
        local_metadata, global_metadata = determine_global_metadata(requested)
        requested, _, _ = validate_integrity_and_strict_load(
            requested, StrictHandling.ASSUME_OK_UNEXPECTED, True, local_metadata, global_metadata
        )
        with used_by_megatron(reader):
            loaded = merge(loaded, strategy.load(requested, folder))
        return apply_factory_merges(loaded, factories)
    except CheckpointException as error:
        reasons = sorted({one_line(reason) for reason, _ in error.failures.values()})
        raise DataError(f"cannot load {folder}: {'; '.join(reasons)[:2000]}") from error
    except (CheckpointingException, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot load {folder}: {type(error).__name__}: {one_line(error)}"
        ) from error


def _checked(folder: Path) -> Metadata:
    """Return a checkpoint's metadata after a check of all its pickles (collective).

    The check is that this version can read the checkpoint and that its pickles hold nothing else.
    One process checks for all, since every process that wrote the checkpoint left pickles; the
    others get its result.
    """
    problem: str | None = None
    metadata: Metadata | None = None
    if torch.distributed.get_rank() == 0:
        try:
            _check_format(folder)
            metadata = safe_pickle.check_checkpoint(folder)
            if not _NEWER and not (folder / "common.pt").is_file():
                problem = (
                    f"{folder} was written by a newer megatron-core, which this one cannot read;"
                    " use megatron-core 0.19 (Python 3.12)"
                )
        except (DataError, OSError) as error:
            problem = str(error)
    result: list[Any] = [problem, metadata]
    torch.distributed.broadcast_object_list(result, src=0)
    if result[0]:
        raise DataError(result[0])
    return result[1]


def _check_format(folder: Path) -> None:
    """Check that a checkpoint has the supported format."""
    path = folder / "metadata.json"
    if not path.exists():
        raise DataError(f"{folder} is not a distributed checkpoint: {path.name} is missing")
    if json_file.read_object(path).get("sharded_backend") != torch_dist.BACKEND["sharded_backend"]:
        raise DataError(f"{path} does not describe a torch_dist checkpoint")
