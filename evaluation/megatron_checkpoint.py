"""Megatron checkpoints as models to score, at any step of a training: each is exported once, beside the scores."""

import subprocess
import sys
from pathlib import Path

from evaluation.waiting import wait_for
from galen import worker
from galen.errors import DataError, UsageError

_TRACKER = "latest_checkpointed_iteration.txt"
_EXPORTER = Path(__file__).parent.parent / "checkpoints_convert" / "megatron_to_hf.py"


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds Megatron checkpoints: `latest_checkpointed_iteration.txt` and `iter_…` folders."""
    return (folder / _TRACKER).is_file()


def iterations(folder: Path, wanted: str | None) -> list[int]:
    """Return the iterations to score: the newest, `all`, or those named with commas.

    Raises:
        UsageError: `wanted` is neither.
        DataError: one is not there.
    """
    there = sorted(int(path.name.removeprefix("iter_")) for path in folder.glob("iter_*") if path.name.removeprefix("iter_").isdigit())
    if not there:
        raise DataError(f"{folder} holds no iter_… folder")
    if wanted is None:
        return there[-1:]
    if wanted == "all":
        return there
    parts = [part.strip() for part in wanted.split(",")]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--iterations must be all or numbers with commas, not {wanted!r}")
    missing = [part for part in parts if int(part) not in there]
    if missing:
        raise DataError(f"{folder} holds no iteration {missing[0]}; there are {', '.join(map(str, there))}")
    return [int(part) for part in parts]


def export(folder: Path, iteration: int, target: Path, rank: int = 0) -> Path:
    """Return `target`, the iteration as a Hugging Face folder; the first process makes it.

    The exporter does nothing where `target` is this iteration's export already, and refuses any other folder.

    Raises:
        DataError: the export fails; its own message is passed on.
    """
    if rank:
        wait_for(target)
        return target
    print(f"exporting iteration {iteration} of {folder} to {target} …", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(_EXPORTER), "--megatron", str(folder), "--iteration", str(iteration), "--output", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=worker.end_with_starter)
    if done.returncode:
        raise DataError(f"{folder} cannot be exported: {done.stderr.strip()[-500:]}")
    return target
