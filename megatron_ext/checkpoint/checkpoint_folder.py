"""Layout of a Megatron checkpoint folder. No torch here.

DIR/latest_checkpointed_iteration.txt    number of the newest complete iteration
DIR/iter_0000010/     one iteration: torch_dist files, architecture.json, training_state.json,
                      manifest.json with the size and hash of each
DIR/hf/               config.json and tokenizer of the imported Hugging Face model
"""

import itertools
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galen import atomic, manifest
from galen.atomic import write_text
from galen.errors import DataError
from galen.iterations import (
    LAST,
    LATEST,
    is_complete,
    iteration_folder,
    iterations,
    latest_iteration,
)

__all__ = ["HF", "LATEST", "is_complete", "iteration_folder", "iterations", "latest_iteration"]

HF = "hf"

logger = logging.getLogger(__name__)


def newest(checkpoint: str | Path) -> Path:
    """Return the folder of the newest complete iteration.

    Raises:
        DataError: none exists, or it lacks a file.
    """
    iteration = latest_iteration(checkpoint)
    if iteration is None:
        raise DataError(
            f"{checkpoint} is not a Megatron checkpoint: {_what_it_is(Path(checkpoint))}"
        )
    folder = iteration_folder(checkpoint, iteration)
    for name in LAST:
        if not (folder / name).is_file():
            raise DataError(f"{folder} is not a complete torch_dist checkpoint: {name} is missing")
    return folder


def _what_it_is(folder: Path) -> str:
    """Describe a folder that is not a checkpoint."""
    if not folder.is_dir():
        return "it does not exist"
    if folder.name.startswith("iter_"):
        return "it is one iteration of one; give the folder above it"
    if (folder / "checkpoints" / LATEST).is_file():
        return f"it is a run that holds one; give {folder / 'checkpoints'}"
    if (folder / "config.json").is_file():
        return "it is a Hugging Face model, which `galen import` imports"
    return f"no {LATEST} in it"


def find_iteration(checkpoint: str | Path, iteration: int | None) -> Path:
    """Return the folder of an iteration, the newest for None.

    Raises:
        DataError: it does not exist.
    """
    folder = newest(checkpoint) if iteration is None else iteration_folder(checkpoint, iteration)
    if not folder.is_dir():
        existing = sorted(path.name for path in Path(checkpoint).glob("iter_*"))
        raise DataError(
            f"{folder} does not exist; existing iterations: {', '.join(existing) or 'none'}"
        )
    return folder


def foreign(folder: Path) -> list[str]:
    """Return the names in a folder that no checkpoint has.

    A checkpoint written there would be mixed with something else.
    """
    if not folder.is_dir():
        return [folder.name] if folder.exists() else []
    names = sorted(path.name for path in folder.iterdir())
    return [
        name
        for name in names
        if name not in (HF, LATEST) and not re.match(r"\.|(damaged_|replaced_)?iter_", name)
    ]


def weight_files(folder: Path) -> list[Path]:
    """Return an iteration's tensor files, in the order of the numbers in their names."""
    return sorted(
        folder.glob("*.distcp"),
        key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)],
    )


def partial_folder(checkpoint: str | Path, iteration: int, attempt: str = "") -> Path:
    """Return the folder of an iteration that is being written.

    `attempt` distinguishes this start of a run from those before it.
    """
    final = iteration_folder(checkpoint, iteration)
    if attempt:
        final = final.with_name(f"{final.name}.{attempt}")
    return atomic.partial_path(final)


def remove_partial(checkpoint: str | Path) -> None:
    """Remove partial iterations of killed runs.

    A writer that outlives its run may still write into one: it fails, which does no harm.
    """
    for folder in Path(checkpoint).glob(".iter_*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def publish(checkpoint: str | Path, iteration: int, attempt: str = "") -> None:
    """Give a complete iteration its final name, and move the tracker to it.

    An existing one of this name is replaced if its weights are the same (a run died before the
    tracker moved), else renamed.
    """
    final = iteration_folder(checkpoint, iteration)
    partial = partial_folder(checkpoint, iteration, attempt)
    if final.exists() or final.is_symlink():
        if _weights(final) == _weights(partial) != {}:
            atomic.remove(final)
        else:
            _rename_replaced(final)
    partial.replace(final)
    set_latest(checkpoint, iteration)


def _weights(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of an iteration's tensor files from its manifest.

    None if the manifest is missing or damaged.
    """
    try:
        records = manifest.recorded(folder)
    except DataError:
        return {}
    return {
        path.name: record["sha256"] for path, record in records.items() if path.suffix == ".distcp"
    }


def _rename_replaced(folder: Path) -> None:
    """Rename an iteration whose name another takes; only the user removes it."""
    names = (
        folder.with_name(f"replaced_{folder.name}{f'.{number}' if number else ''}")
        for number in itertools.count()
    )
    new_name = next(name for name in names if not name.exists())
    folder.rename(new_name)
    logger.warning(f"{folder} existed with other weights; renamed to {new_name.name}")


@contextmanager
def new_iteration(checkpoint: str | Path, iteration: int) -> Iterator[Path]:
    """Yield a temporary folder for an iteration's files; then rename it and move the tracker."""
    yield partial_folder(checkpoint, iteration)
    publish(checkpoint, iteration)


def set_latest(checkpoint: str | Path, iteration: int | None) -> None:
    """Move the tracker to an iteration; None for no iteration."""
    tracker = Path(checkpoint) / LATEST
    if iteration is None:
        tracker.unlink(missing_ok=True)
    else:
        write_text(tracker, f"{iteration}\n")


def prune(checkpoint: str | Path, keep_last: int, keep_every_n_steps: int | None = None) -> None:
    """Remove old iterations.

    The newest `keep_last` complete ones and the multiples of `keep_every_n_steps` are kept.
    """
    existing = iterations(checkpoint)
    complete = [n for n in existing if is_complete(iteration_folder(checkpoint, n))]
    oldest = min(complete[-keep_last:], default=0)
    for iteration in existing:
        if iteration >= oldest or (
            keep_every_n_steps is not None and iteration % keep_every_n_steps == 0
        ):
            continue
        folder = iteration_folder(checkpoint, iteration)
        # a kill during the removal must not leave half a checkpoint
        removed = folder.with_name(f".{folder.name}.removed")
        folder.rename(removed)
        shutil.rmtree(removed)
    for removed in Path(checkpoint).glob(".iter_*.removed"):
        shutil.rmtree(removed, ignore_errors=True)
