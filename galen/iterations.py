"""Finds the iterations of a Megatron checkpoint folder and the newest one, for every command.

DIR/latest_checkpointed_iteration.txt   number of the newest complete iteration (Megatron-LM's name)
DIR/iter_0000010/                       one iteration
"""

import functools
import logging
import os
import re
from pathlib import Path

from galen import manifest
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)

LATEST = "latest_checkpointed_iteration.txt"
LAST = ("metadata.json", ".metadata")
"""What every writer of torch_dist checkpoints leaves last."""
_OURS = "architecture.json"
"""Beside it stands a manifest, where a command of ours wrote the iteration."""
_NUMBER = re.compile(r"[0-9]{1,18}")


def iteration_folder(checkpoint: str | Path, iteration: int) -> Path:
    """Return the folder of one iteration."""
    return Path(checkpoint) / f"iter_{iteration:07d}"


def latest_iteration(checkpoint: str | Path) -> int | None:
    """Return the iteration that the tracker file names, or None when there is none yet.

    If the tracker is missing, damaged, or names a missing iteration, this is the newest complete
    one, with a warning: a run that restarted at step 0 would overwrite existing iterations.

    Raises:
        DataError: all existing iterations are incomplete.
    """
    tracker = Path(checkpoint) / LATEST
    named, wrong = _read_tracker(tracker)
    if named is not None and not iteration_folder(checkpoint, named).is_dir():
        wrong = (
            f"{tracker} names iteration {named}, but {iteration_folder(checkpoint, named)} does not"
            " exist"
        )
    if wrong is None:
        return named
    existing = iterations(checkpoint)
    complete = [
        iteration for iteration in existing if is_complete(iteration_folder(checkpoint, iteration))
    ]
    if complete:
        _warn_once(f"{wrong}: using the newest complete iteration, {complete[-1]}")
        return complete[-1]
    if existing or tracker.exists():
        raise DataError(
            f"{wrong}, and no iter_… folder in {checkpoint} is complete; copy it again, or choose"
            " another folder"
        )
    return None


def _read_tracker(tracker: Path) -> tuple[int | None, str | None]:
    """Return the iteration that a tracker file names, or what is wrong with it."""
    try:
        if tracker.is_fifo():
            return None, f"{tracker} is a pipe"
        with tracker.open("rb") as file:
            text = file.read(64).decode("ascii", errors="replace").strip()
    except OSError as error:
        return None, f"{tracker}: {error.strerror}"
    if _NUMBER.fullmatch(text):
        return int(text), None
    return None, f"{tracker} should hold the number of an iteration, it holds {text[:40]!r}"


def is_complete(folder: Path) -> bool:
    """Return whether an iteration is complete.

    It is when the files that its writer writes last exist and every file has its recorded size.
    """
    required = [*LAST, *([manifest.NAME] if (folder / _OURS).is_file() else [])]
    if not all((folder / name).is_file() for name in required):
        return False
    try:
        records = manifest.recorded(folder)
    except DataError:
        return False
    return all(
        path.is_file() and path.stat().st_size == record["bytes"]
        for path, record in records.items()
    )


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning once per command, from the first process only."""
    if os.environ.get("RANK", "0") == "0":
        logger.warning(message)


def iterations(checkpoint: str | Path) -> list[int]:
    """Return the existing iterations in order.

    Those after the newest that the tracker names may be incomplete.
    """
    names = [
        folder.name
        for folder in Path(checkpoint).glob("iter_*")
        if _NUMBER.fullmatch(folder.name[5:])
    ]
    return sorted(
        int(name[5:]) for name in names if name == iteration_folder(checkpoint, int(name[5:])).name
    )


def select(checkpoint: str | Path, selection: str | None) -> list[int]:
    """Return the iterations that an option selects.

    Args:
        checkpoint: folder of the iterations.
        selection: numbers separated by commas, `all` up to the newest, or None for the newest,
            which the checkpoint's pointer names.

    Raises:
        UsageError: the selection is neither.
        DataError: one does not exist.
    """
    existing = iterations(checkpoint)
    if selection is not None and selection != "all":
        return _named(checkpoint, selection, existing)
    newest = latest_iteration(checkpoint)
    if newest is None or not iteration_folder(checkpoint, newest).is_dir():
        raise DataError(f"{checkpoint} holds no iter_… folder")
    if selection is None:
        return [newest]
    return [iteration for iteration in existing if iteration <= newest]


def _named(checkpoint: str | Path, selection: str, existing: list[int]) -> list[int]:
    numbers = [number.strip() for number in selection.split(",")]
    if not all(_is_iteration(number) for number in numbers):
        raise UsageError(f"--iterations must be all or numbers with commas, not {selection!r}")
    missing = [number for number in numbers if int(number) not in existing]
    if missing:
        raise DataError(
            f"{checkpoint} holds no iteration {missing[0]}; there are"
            f" {', '.join(map(str, existing)) or 'none'}"
        )
    return [int(number) for number in numbers]


def _is_iteration(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
