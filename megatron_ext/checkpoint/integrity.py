"""Finds truncated or changed checkpoints by the sizes and SHA-256 in an iteration's manifest.json.

The processes divide the files among them, so that the checkpoint is read once.
"""

import contextlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest

from galen import checksums, json_file, manifest
from galen.errors import DataError
from galen.worker import exit_with_failed_child
from megatron_ext.checkpoint import checkpoint_folder

STAGE = "checkpoint"
_HASHES = ".sha256_"


def seal(folder: Path, iteration: int, layout: list[int]) -> None:
    """Write the manifest of a complete iteration (collective).

    Each process contributes the hashes of the files that it wrote.
    """
    rank = torch.distributed.get_rank()
    own = f"__{rank}_"
    hashes = _recorded_hashes(folder, rank)
    records = [
        manifest.describe_file(path, hashes.get(path.name))
        for path in sorted(folder.iterdir())
        if path.name.startswith(own)
    ]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, records)
    if rank == 0:
        for path in folder.glob(f"{_HASHES}*"):
            path.unlink()
        common_files = [path for path in sorted(folder.iterdir()) if not path.name.startswith("__")]
        outputs = [*itertools.chain.from_iterable(gathered), *common_files]
        manifest.write(
            folder / manifest.NAME,
            stage=STAGE,
            inputs=[],
            config={"layout": layout},
            outputs=outputs,
            counts={"iteration": iteration},
        )


def hash_when_written(request: AsyncRequest, folder: Path) -> AsyncRequest:
    """Return a request to write whose process also hashes the files that it wrote, for `seal`."""
    if request.async_fn is None:
        return request
    return request._replace(async_fn=partial(_write_and_hash, request.async_fn, folder))


def _write_and_hash(
    write: Callable[..., None], folder: Path, rank: int, write_buckets: Sequence[Any], results: Any
) -> None:
    """Write the files of a rank, each described by a bucket, and leave their hashes beside them.

    An error of the write is in `results`; without hashes, `seal` computes them. If one of the
    processes that write for it is killed, this one exits without a result.
    """
    if multiprocessing.parent_process() is not None:
        exit_with_failed_child()
    write(rank, write_buckets, results)
    paths = [Path(bucket[0]) for bucket in write_buckets]
    with contextlib.suppress(OSError), ThreadPoolExecutor(max(len(paths), 1)) as threads:
        hashes = list(threads.map(manifest.sha256, paths))
        content = {path.name: sha256 for path, sha256 in zip(paths, hashes, strict=True)}
        # fails where the folder of a killed run was removed, instead of making it again
        temporary = folder / f"{_HASHES}{rank}.tmp"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(folder / f"{_HASHES}{rank}.json")


def _recorded_hashes(folder: Path, rank: int) -> dict[str, str]:
    """Return the hashes by file name that the writer of a rank left, if any."""
    path = folder / f"{_HASHES}{rank}.json"
    return json_file.read_object(path) if path.is_file() else {}


def damage(folder: Path) -> str | None:
    """Return why an iteration is damaged, or None (collective).

    Each process reads some of the files. An iteration without a manifest, as another tool may have
    written it, is not checked here.
    """
    world_size = torch.distributed.get_world_size()
    problems: list[Any] = [None] * world_size
    own = _first_damage(folder, torch.distributed.get_rank(), world_size)
    torch.distributed.all_gather_object(problems, own)
    return next((problem for problem in problems if problem), None)


def _first_damage(folder: Path, rank: int, world_size: int) -> str | None:
    """Return the first problem in every `world_size`-th file of an iteration, from `rank` on."""
    try:
        records = sorted(manifest.recorded(folder).items())
    except DataError as error:
        return str(error)
    for path, record in records[rank::world_size]:
        if problem := checksums.difference(path, record):
            return problem
    return None


def verify(folder: Path) -> None:
    """Compare all files of an iteration with its manifest (collective).

    Each process reads some of them.

    Raises:
        DataError: one is missing or was changed.
    """
    if problem := damage(folder):
        raise DataError(
            f"{problem}; copy the checkpoint again (model.verify_checksums=false reads it as it is)"
        )


def _candidates(checkpoint: Path) -> list[int] | str:
    """Return the iterations up to the tracker's, or the tracker's problem."""
    try:
        latest = checkpoint_folder.latest_iteration(checkpoint)
    except DataError as error:
        return str(error)
    if latest is None:
        damaged = sorted(folder.name for folder in checkpoint.glob("damaged_iter_*"))
        if damaged:
            return (
                f"{checkpoint} holds damaged checkpoints only ({', '.join(damaged)}); remove that"
                " folder to start from the beginning"
            )
        return []
    return [number for number in checkpoint_folder.iterations(checkpoint) if number <= latest]


def newest_intact(checkpoint: Path) -> tuple[Path | None, list[str]]:
    """Return a run's newest intact iteration, and the problems of later ones (collective).

    The iteration is None if none exists. A damaged one is renamed to `damaged_iter_…`, so that
    it is not mistaken for a complete one.
    """
    is_first_rank = torch.distributed.get_rank() == 0
    problems: list[str] = []
    candidates: list[Any] = [_candidates(checkpoint) if is_first_rank else None]
    torch.distributed.broadcast_object_list(candidates, src=0)
    if isinstance(candidates[0], str):
        raise DataError(candidates[0])
    for iteration in reversed(candidates[0]):
        folder = checkpoint_folder.iteration_folder(checkpoint, iteration)
        problem = damage(folder)
        if problem is None:
            return folder, problems
        problems.append(problem)
        if is_first_rank:
            folder.rename(folder.with_name(f"damaged_{folder.name}"))
            older = [other for other in candidates[0] if other < iteration]
            checkpoint_folder.set_latest(checkpoint, older[-1] if older else None)
        torch.distributed.barrier()
    return None, problems
