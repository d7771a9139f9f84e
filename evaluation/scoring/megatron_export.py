"""Megatron checkpoints as models to score, at any step of a training run.

Each is exported once, beside the scores.
"""

import logging
import subprocess
import sys
from pathlib import Path

from evaluation.scoring.barrier import wait_for_file
from galen import iterations, worker
from galen.errors import DataError

logger = logging.getLogger(__name__)

_EXPORTER = Path(__file__).parents[2] / "checkpoints_convert" / "megatron_to_hf.py"


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds Megatron checkpoints.

    These have a pointer to the newest one, or are `iter_…` folders without it.
    """
    return (folder / iterations.LATEST).is_file() or bool(iterations.iterations(folder))


def export(folder: Path, iteration: int, target: Path, rank: int = 0, verify: bool = True) -> Path:
    """Return `target`, the iteration as a Hugging Face folder; the first process makes it.

    The exporter does nothing if `target` is this iteration's export already, and refuses any other
    existing folder.

    Raises:
        DataError: the export fails; with its message.
    """
    if rank:
        wait_for_file(target)
        return target
    logger.info(f"exporting iteration {iteration} of {folder} to {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(_EXPORTER),
        "--megatron",
        str(folder),
        "--iteration",
        str(iteration),
        "--output",
        str(target),
    ]
    command += [] if verify else ["--no-verify"]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=worker.die_with_parent
    )
    if done.returncode:
        raise DataError(
            f"{folder} cannot be exported: {done.stderr.rpartition('error: ')[2].strip()[-500:]}"
        )
    for line in done.stderr.splitlines():
        _, is_logged, text = line.partition(" WARNING ")
        if is_logged:
            logger.warning(text)
        elif line.startswith("warning: "):
            logger.warning(line.removeprefix("warning: "))
    return target
