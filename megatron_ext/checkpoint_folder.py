"""Where things are in a Megatron checkpoint folder. No torch here.

DIR/latest_checkpointed_iteration.txt   number of the newest complete iteration (Megatron-LM's name)
DIR/iter_0000010/                       one iteration: torch_dist files, architecture.json, training_state.json,
                                        manifest.json with the size and hash of each
DIR/hf/                                 config.json and tokenizer of the Hugging Face model that it came from
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galen.atomic import write_text
from galen.errors import DataError

LATEST = "latest_checkpointed_iteration.txt"
HF = "hf"


def iteration_folder(checkpoint: str | Path, iteration: int) -> Path:
    """Return the folder of one iteration."""
    return Path(checkpoint) / f"iter_{iteration:07d}"


def latest_iteration(checkpoint: str | Path) -> int | None:
    """Return the newest complete iteration, or None when there is none yet.

    Raises:
        DataError: the tracker file is damaged or names a folder that is not there.
    """
    tracker = Path(checkpoint) / LATEST
    if not tracker.is_file():
        return None
    text = tracker.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isdigit():
        raise DataError(f"{tracker} should hold the number of an iteration, it holds {text[:40]!r}")
    if not iteration_folder(checkpoint, int(text)).is_dir():
        raise DataError(f"{tracker} names iteration {text}, but {iteration_folder(checkpoint, int(text))} is not there")
    return int(text)


def newest(checkpoint: str | Path) -> Path:
    """Return the folder of the newest complete iteration.

    Raises:
        DataError: there is none, or it lacks a file.
    """
    iteration = latest_iteration(checkpoint)
    if iteration is None:
        raise DataError(f"{checkpoint} is not a Megatron checkpoint: {_what(Path(checkpoint))}")
    folder = iteration_folder(checkpoint, iteration)
    for name in ("metadata.json", ".metadata"):
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


def weight_files(folder: Path) -> list[Path]:
    """Return the files of an iteration that hold tensors, in the order of the numbers in their names."""
    return sorted(folder.glob("*.distcp"), key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def partial_folder(checkpoint: str | Path, iteration: int, attempt: str = "") -> Path:
    """Return the folder of an iteration that is being written; `attempt` tells this start of a run from those before it."""
    final = iteration_folder(checkpoint, iteration)
    return final.with_name(f".{final.name}{attempt and '.' + attempt}.partial")


def remove_partial(checkpoint: str | Path) -> None:
    """Remove what killed runs left unfinished. A writer that outlives its run may still be at work there: it fails, which does no harm."""
    for folder in Path(checkpoint).glob(".iter_*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def publish(checkpoint: str | Path, iteration: int, attempt: str = "") -> None:
    """Give an iteration that is whole its name, and move the tracker to it."""
    final = iteration_folder(checkpoint, iteration)
    shutil.rmtree(final, ignore_errors=True)  # the same step, left by a run that died before the tracker moved
    partial_folder(checkpoint, iteration, attempt).replace(final)
    set_latest(checkpoint, iteration)


@contextmanager
def new_iteration(checkpoint: str | Path, iteration: int) -> Iterator[Path]:
    """Yield a temporary folder for the files of an iteration; afterwards give it its name and move the tracker to it."""
    yield partial_folder(checkpoint, iteration)
    publish(checkpoint, iteration)


def iterations(checkpoint: str | Path) -> list[int]:
    """Return the iterations that are there, in their order; those after the newest that the tracker names may be incomplete."""
    return sorted(int(folder.name[5:]) for folder in Path(checkpoint).glob("iter_*") if folder.name[5:].isdigit())


def set_latest(checkpoint: str | Path, iteration: int | None) -> None:
    """Move the tracker to an iteration; None for no iteration."""
    tracker = Path(checkpoint) / LATEST
    if iteration is None:
        tracker.unlink(missing_ok=True)
    else:
        write_text(tracker, f"{iteration}\n")


def prune(checkpoint: str | Path, keep: int, every: int | None = None) -> None:
    """Remove all but the newest `keep` iterations and, where `every` is given, the multiples of it."""
    for iteration in iterations(checkpoint)[:-keep]:
        if every is None or iteration % every:
            folder = iteration_folder(checkpoint, iteration)
            doomed = folder.with_name(f".{folder.name}.removed")  # a kill while it is removed must not leave half a checkpoint
            folder.rename(doomed)
            shutil.rmtree(doomed)
    for left in Path(checkpoint).glob(".iter_*.removed"):
        shutil.rmtree(left, ignore_errors=True)
