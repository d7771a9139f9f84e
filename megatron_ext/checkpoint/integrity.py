"""Finds truncated or altered checkpoints.

An iteration's manifest.json has the sizes and SHA-256 of all files.

Reading is shared among the processes, so that it takes as long as reading the checkpoint once.
"""

from pathlib import Path
from typing import Any

import torch

from galen import checksums, manifest
from galen.errors import DataError
from megatron_ext.checkpoint import folder as checkpoint_folder

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
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, records)
    if rank == 0:
        others = [path for path in sorted(folder.iterdir()) if not path.name.startswith("__")]
        outputs = [record for part in everyone for record in part] + others
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

    Each process reads its share of the files.

    An iteration without a manifest, as another tool may have written it, is only looked at by the
    reader itself.
    """
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(found, _damage_of_share(folder, rank, ranks))
    return next((what for what in found if what), None)


def _damage_of_share(folder: Path, rank: int, ranks: int) -> str | None:
    try:
        records = sorted(manifest.recorded(folder).items())
    except DataError as error:
        return str(error)
    found = (checksums.difference(path, record) for path, record in records[rank::ranks])
    return next((wrong for wrong in found if wrong), None)


def verify(folder: Path) -> None:
    """Compare all files of an iteration with its manifest (collective).

    Each process reads its share of them.

    Raises:
        DataError: one is missing or was altered.
    """
    if wrong := damage(folder):
        raise DataError(
            f"{wrong}; copy the checkpoint again (model.verify_checksums=false reads it as it is)"
        )


def _candidates(checkpoint: Path) -> list[int] | str:
    """Return the iterations that the tracker counts, or what is wrong with it."""
    try:
        latest = checkpoint_folder.latest_iteration(checkpoint)
    except DataError as error:
        return str(error)
    if latest is None and (
        aside := sorted(folder.name for folder in checkpoint.glob("damaged_iter_*"))
    ):
        return (
            f"{checkpoint} holds damaged checkpoints only ({', '.join(aside)}); remove that folder"
            " to start from the beginning"
        )
    return [
        iteration
        for iteration in checkpoint_folder.iterations(checkpoint)
        if latest is not None and iteration <= latest
    ]


def newest_whole(checkpoint: Path) -> tuple[Path | None, list[str]]:
    """Return a run's newest undamaged iteration and what is wrong with later ones (collective).

    The iteration is None if there is none. A damaged one is renamed to `damaged_iter_…`, so that
    nothing takes it for a complete one.
    """
    first = torch.distributed.get_rank() == 0
    reports: list[str] = []
    candidates: list[Any] = [_candidates(checkpoint) if first else None]
    torch.distributed.broadcast_object_list(candidates, src=0)
    if isinstance(candidates[0], str):
        raise DataError(candidates[0])
    for iteration in reversed(candidates[0]):
        folder = checkpoint_folder.iteration_folder(checkpoint, iteration)
        wrong = damage(folder)
        if wrong is None:
            return folder, reports
        reports.append(wrong)
        if first:
            folder.rename(folder.with_name(f"damaged_{folder.name}"))
            older = [other for other in candidates[0] if other < iteration]
            checkpoint_folder.set_latest(checkpoint, older[-1] if older else None)
        torch.distributed.barrier()
    return None, reports
