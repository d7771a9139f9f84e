"""Finds truncated or changed checkpoints by the sizes and SHA-256 in an iteration's manifest.json.

The processes divide the files among them, so that the checkpoint is read once.
"""

import itertools
from pathlib import Path
from typing import Any

import torch

from galen import checksums, manifest
from galen.errors import DataError
from megatron_ext.checkpoint import checkpoint_folder

STAGE = "checkpoint"


def seal(folder: Path, iteration: int, layout: list[int]) -> None:
    """Write the manifest of a complete iteration (collective).

    Each process hashes the files that it wrote.
    """
    rank = torch.distributed.get_rank()
    own = f"__{rank}_"
    records = [
        manifest.describe_file(path)
        for path in sorted(folder.iterdir())
        if path.name.startswith(own)
    ]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, records)
    if rank == 0:
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
