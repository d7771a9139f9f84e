"""Runs the steps of a conversion, each of which writes one file, and resumes a killed run.

The caller has prepared the working folder (`galen.run_folder.resume`).
"""

import hashlib
import json
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from checkpoints_convert.resumable_io.input_hashes import InputHashes
from checkpoints_convert.resumable_io.output_file import OutputFile
from checkpoints_convert.resumable_io.prefetch import Prefetcher
from galen import manifest
from galen.atomic import write_text
from galen.errors import DataError
from galen.main_guard import check_main_guard
from galen.progress import Progress
from galen.run_folder import IDENTITY
from galen.run_identity import stat_record
from galen.worker import exit_with_parent
from megatron_ext.config.architecture import Architecture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step(ABC):
    """Writes one file of the output; sent to another process where several work."""

    file: str
    """Its name in the output folder."""
    nbytes: int
    """Bytes of the tensors in it."""

    @abstractmethod
    def run(self, output: OutputFile, reader: Prefetcher) -> Any:
        """Write the file from `reader`; return a result for the end of the conversion.

        The result is of JSON types.
        """


def run_steps(
    label: str, folder: Path, steps: Sequence[Step], workers: int, inputs: InputHashes
) -> tuple[list[Any], dict[Path, str]]:
    """Run the steps that no earlier start finished.

    Returns their results in order and the SHA-256 of inputs and outputs.

    When a step fails, complete files have been recorded, so that the next start skips them.

    Raises:
        DataError: the disk has not enough space for the missing files, or an input differs from its
            manifest.
    """
    total_bytes = sum(step.nbytes for step in steps)
    missing = [step for step in steps if _read_result(folder, step) is None]
    done_bytes = sum((folder / step.file).stat().st_size for step in steps if step not in missing)
    _check_disk_space(folder, total_bytes - done_bytes, missing)
    if done_bytes:
        logger.info(f"resuming: {len(steps) - len(missing)} of {len(steps)} files are done")
    with Progress(label, total=total_bytes, unit="B", scale=True) as progress:

        def written(size: int) -> None:
            progress.update(size)
            inputs.advance(progress.done / total_bytes)

        written(done_bytes)
        if workers == 1 or len(missing) < 2:
            run_serial(folder, missing, written)
        else:
            # other processes report only complete files
            inputs.ahead += workers * total_bytes // len(steps)
            run_parallel(folder, missing, workers, written)
        hashes = inputs.result()
    results = [_read_result(folder, step) for step in steps]
    hashes |= {
        folder / step.file: result["sha256"] for step, result in zip(steps, results, strict=True)
    }
    (folder / IDENTITY).unlink(missing_ok=True)
    for step in steps:
        _result_path(folder, step).unlink()
    return [result["result"] for result in results], hashes


def _check_disk_space(folder: Path, needed: int, missing: Sequence[Step]) -> None:
    begun = sum(
        (folder / step.file).stat().st_size for step in missing if (folder / step.file).is_file()
    )
    free = shutil.disk_usage(folder).free + begun
    if free < needed:
        raise DataError(
            f"{folder.parent} has {free / 1e9:,.3f} GB of free space, the conversion writes"
            f" {needed / 1e9:,.3f} GB"
        )


def run_serial(folder: Path, steps: Sequence[Step], written: Callable[[int], None]) -> None:
    """Run the steps here; a file is flushed and recorded while the next one is begun."""
    with Prefetcher() as reader, ThreadPoolExecutor(1, "finish") as finisher:
        finishing: Future[None] | None = None
        for step in steps:
            finish = _write(folder, step, reader, written)
            if finishing is not None:
                finishing.result()
            finishing = finisher.submit(finish)
        if finishing is not None:
            finishing.result()


def run_parallel(
    folder: Path, steps: Sequence[Step], workers: int, written: Callable[[int], None]
) -> None:
    """Run the steps in several processes.

    They end with this one; otherwise they would write into the files of its next start.
    """
    check_main_guard()
    with ProcessPoolExecutor(
        min(workers, len(steps)), mp_context=get_context("spawn"), initializer=exit_with_parent
    ) as pool:
        running = {pool.submit(run_serial, folder, [step], ignore_progress): step for step in steps}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    written((folder / running.pop(future).file).stat().st_size)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def ignore_progress(_: int) -> None:
    """Ignore progress within a file, which the parent process does not receive."""


def _write(
    folder: Path, step: Step, reader: Prefetcher, written: Callable[[int], None]
) -> Callable[[], None]:
    """Write a step's file.

    Returns a function that finishes it; after that, a new start will not write the file again.

    The record of the file has a hash of its own: a damaged record is ignored.
    """
    output = OutputFile(folder / step.file, written)
    try:
        result = step.run(output, reader)
    except BaseException:
        output.abandon()
        raise

    def finish() -> None:
        record = json.dumps({"result": result, "sha256": output.close(), "bytes": output.tell()})
        write_text(_result_path(folder, step), f"{_digest(record)}\n{record}")

    return finish


def _result_path(folder: Path, step: Step) -> Path:
    return folder / f".{step.file}.json"


def _read_result(folder: Path, step: Step) -> Any:
    """Return an earlier start's record of a step's file.

    None if the record or the file is missing or damaged.
    """
    try:
        digest, record = _result_path(folder, step).read_text(encoding="utf-8").split("\n", 1)
        result = json.loads(record) if digest == _digest(record) else None
        return result if result and (folder / step.file).stat().st_size == result["bytes"] else None
    except (OSError, ValueError):
        return None


def _digest(record: str) -> str:
    return hashlib.sha256(record.encode()).hexdigest()


def write_manifest(
    folder: Path,
    stage: str,
    inputs: Sequence[Path],
    hashes: dict[Path, str],
    config: dict[str, Any],
    files: Iterable[Path],
    architecture: Architecture,
) -> None:
    """Write the manifest of a finished output: `files` in `folder`, made from `inputs`.

    `hashes` are the SHA-256 known so far. Inputs are recorded with their time of change, so that
    the next start need not hash them.
    """
    manifest.write(
        folder / manifest.NAME,
        stage=stage,
        inputs=[
            manifest.describe_file(path, hashes.get(path)) | stat_record(path) for path in inputs
        ],
        config=config,
        # of a killed conversion
        outputs=[
            manifest.describe_file(path, hashes.get(path))
            for path in files
            if path.name != manifest.NAME
        ],
        counts={"parameters": architecture.parameters},
    )
