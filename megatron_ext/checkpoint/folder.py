"""Where things are in a Megatron checkpoint folder. No torch here.

DIR/latest_checkpointed_iteration.txt   number of the newest complete iteration (Megatron-LM's name)
DIR/iter_0000010/                       one iteration: torch_dist files, architecture.json,
training_state.json,
                                        manifest.json with the size and hash of each
DIR/hf/                                 config.json and tokenizer of the Hugging Face model that it
came from
"""

import itertools
import re
import shutil
import sys
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


def newest(checkpoint: str | Path) -> Path:
    """Return the folder of the newest complete iteration.

    Raises:
        DataError: there is none, or it lacks a file.
    """
    iteration = latest_iteration(checkpoint)
    if iteration is None:
        raise DataError(f"{checkpoint} is not a Megatron checkpoint: {_what(Path(checkpoint))}")
    folder = iteration_folder(checkpoint, iteration)
    for name in LAST:
        if not (folder / name).is_file():
            raise DataError(f"{folder} is not a complete torch_dist checkpoint: {name} is missing")
    return folder


def _what(folder: Path) -> str:
    """Say what a folder is that was taken for a checkpoint."""
    if not folder.is_dir():
        return "there is no such folder"
    if folder.name.startswith("iter_"):
        return "it is one iteration of one; give the folder above it"
    if (folder / "checkpoints" / LATEST).is_file():
        return f"it is a run that holds one; give {folder / 'checkpoints'}"
    if (folder / "config.json").is_file():
        return "it is a Hugging Face model, which checkpoints_convert/hf_to_megatron.py imports"
    return f"no {LATEST} in it"


def find_iteration(checkpoint: str | Path, iteration: int | None) -> Path:
    """Return the folder of an iteration, the newest for None.

    Raises:
        DataError: there is none.
    """
    folder = newest(checkpoint) if iteration is None else iteration_folder(checkpoint, iteration)
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in Path(checkpoint).glob("iter_*"))) or "none"
        raise DataError(f"{folder} does not exist; iterations there: {there}")
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
    return final.with_name(f".{final.name}{attempt and '.' + attempt}.partial")


def remove_partial(checkpoint: str | Path) -> None:
    """Remove what killed runs left unfinished.

    A writer that outlives its run may still be at work there: it fails, which does no harm.
    """
    for folder in Path(checkpoint).glob(".iter_*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def publish(checkpoint: str | Path, iteration: int, attempt: str = "") -> None:
    """Give an iteration that is whole its name, and move the tracker to it.

    One that has this name is replaced where its weights are the same (a run died before the tracker
    moved), else set aside.
    """
    final = iteration_folder(checkpoint, iteration)
    partial = partial_folder(checkpoint, iteration, attempt)
    if final.exists() or final.is_symlink():
        if _weights(final) == _weights(partial) != {}:
            atomic.remove(final)
        else:
            _set_aside(final)
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


def _set_aside(folder: Path) -> None:
    """Rename an iteration so that another can have its name; nothing but a person removes it."""
    names = (
        folder.with_name(f"replaced_{folder.name}{f'.{number}' if number else ''}")
        for number in itertools.count()
    )
    aside = next(name for name in names if not name.exists())
    folder.rename(aside)
    print(
        f"warning: {folder} was there with other weights; it is now {aside.name}",
        file=sys.stderr,
        flush=True,
    )


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


def prune(checkpoint: str | Path, keep: int, every: int | None = None) -> None:
    """Remove what is older than the newest `keep` complete iterations.

    If `every` is given, its multiples stay.
    """
    there = iterations(checkpoint)
    kept = [number for number in there if is_complete(iteration_folder(checkpoint, number))]
    for iteration in there:
        if iteration < min(kept[-keep:], default=0) and (every is None or iteration % every):
            folder = iteration_folder(checkpoint, iteration)
            # a kill while it is removed must not leave half a checkpoint
            doomed = folder.with_name(f".{folder.name}.removed")
            folder.rename(doomed)
            shutil.rmtree(doomed)
    for left in Path(checkpoint).glob(".iter_*.removed"):
        shutil.rmtree(left, ignore_errors=True)
