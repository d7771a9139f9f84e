"""Runs the steps of a conversion, each of which writes one file, and goes on where a killed run stopped."""

import hashlib
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from galen import manifest
from galen.atomic import write_text
from galen.progress import Progress
from galen.worker import follow_parent

_PLAN = ".plan.json"
_HASHED_AT_ONCE = 2**20  # bytes; fits the processor's cache
_SYNCED_AT_ONCE = 2**28  # bytes; seldom enough not to wait for the disk, often enough to keep it busy


@dataclass(frozen=True)
class Step(ABC):
    """Writes one file of the output; sent to another process where several work."""

    file: str
    """Its name in the output folder."""

    @abstractmethod
    def run(self, path: Path, written: Callable[[int], None]) -> Any:
        """Write the file at `path` and return what the end of the conversion needs to know of it, as JSON types.

        `written` is told, on the way, up to which byte the file has its final content, so that it is hashed while it grows.
        """


def plan_matches(folder: Path, inputs: Sequence[Path], config: dict[str, Any], write: bool = False) -> bool:
    """Return whether the unfinished output in `folder` was begun from these inputs with this configuration; or record so."""
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in inputs]
    plan = json.loads(json.dumps({"inputs": files, "config": config}))
    path = folder / _PLAN
    if write:
        write_text(path, json.dumps(plan))
        return True
    try:
        return json.loads(path.read_text(encoding="utf-8")) == plan
    except (OSError, ValueError):
        return False


def run_steps(
    label: str, folder: Path, steps: Sequence[Step], workers: int, inputs: Sequence[Path], total_bytes: int
) -> tuple[list[Any], dict[Path, str]]:
    """Run the steps that no earlier run finished; return their results in order and the SHA-256 of inputs and outputs.

    Inputs and outputs are hashed by threads beside the work, while they are in the disk's cache. When the work fails, the inputs'
    hashes are given up; a file that is whole has been recorded, so that the next start keeps it.
    """
    done = [_read_result(folder, step) for step in steps]
    with (
        ThreadPoolExecutor(1) as hasher,
        Progress(label, total=total_bytes, unit="B", scale=True) as progress,
    ):
        input_hashes = {path: hasher.submit(manifest.sha256, path) for path in inputs}
        try:
            for step, result in zip(steps, done, strict=True):
                if result is not None:
                    progress.update((folder / step.file).stat().st_size)
            if any(done):
                print(f"going on after {sum(result is not None for result in done)} of {len(steps)} files", file=sys.stderr)
            missing = [step for step, result in zip(steps, done, strict=True) if result is None]
            if workers == 1 or len(missing) < 2:
                for step in missing:
                    _write_and_record(folder, step, progress.update)
            else:
                _shared(folder, missing, workers, progress)
        except BaseException:
            hasher.shutdown(wait=False, cancel_futures=True)
            raise
        hashes = {path: future.result() for path, future in input_hashes.items()}
    results = [_read_result(folder, step) for step in steps]
    hashes |= {folder / step.file: result["sha256"] for step, result in zip(steps, results, strict=True)}
    (folder / _PLAN).unlink()
    for step in steps:
        _result_path(folder, step).unlink()
    return [result["result"] for result in results], hashes


def _shared(folder: Path, steps: Sequence[Step], workers: int, progress: Progress) -> None:
    """Let several processes do the steps; they end with this one, or they would write into the files of its next start."""
    with ProcessPoolExecutor(min(workers, len(steps)), mp_context=get_context("spawn"), initializer=follow_parent) as pool:
        running = {pool.submit(_write_and_record, folder, step): step for step in steps}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    progress.update((folder / running.pop(future).file).stat().st_size)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_and_record(folder: Path, step: Step, progress: Callable[[int], None] = lambda _: None) -> None:
    """Write a step's file and note that it is whole: after this a new start will not write it again."""
    path = folder / step.file
    path.touch()
    with GrowingFile(path, progress) as growing:
        result = step.run(path, growing.written)
    write_text(_result_path(folder, step), json.dumps({"result": result, "sha256": growing.sha256}))


class GrowingFile:
    """Hashes a file and brings it to the disk while it is being written, in a thread of its own.

    Otherwise both would begin when all is written, and take as long again.
    """

    def __init__(self, path: Path, progress: Callable[[int], None]) -> None:
        self.path = path
        self.sha256 = ""
        self._progress = progress
        self._ends: SimpleQueue[int | None] = SimpleQueue()
        self._thread = ThreadPoolExecutor(1)

    def written(self, end: int) -> None:
        """Say that the bytes before `end` will not change any more."""
        self._ends.put(end)

    def __enter__(self) -> "GrowingFile":
        self._hash = self._thread.submit(self._follow)
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self._ends.put(None)
        try:
            if failed is None:
                self.sha256 = self._hash.result()
        finally:
            self._thread.shutdown()

    def _follow(self) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_HASHED_AT_ONCE))
        with self.path.open("rb+", buffering=0) as file:
            place = synced = 0
            while (end := self._ends.get()) is not None:
                start = place
                while place < end:
                    count = file.readinto(buffer[: min(end - place, len(buffer))])
                    digest.update(buffer[:count])
                    place += count
                if place - synced >= _SYNCED_AT_ONCE:
                    os.fdatasync(file.fileno())
                    synced = place
                self._progress(place - start)
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                self._progress(count)
            os.fsync(file.fileno())
        return digest.hexdigest()


def _result_path(folder: Path, step: Step) -> Path:
    return folder / f".{step.file}.json"


def _read_result(folder: Path, step: Step) -> Any:
    try:
        return json.loads(_result_path(folder, step).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def done_before(folder: Path, stage: str, inputs: Sequence[Path], config: dict[str, Any]) -> bool:
    """Return whether the finished output in `folder` was made by this stage from these inputs with this configuration.

    Files of the same path, size and time of change are taken as the same; others are hashed.
    """
    made = manifest.read(folder, stage)
    if {**made["config"], **json.loads(json.dumps(config))} != made["config"]:
        return False
    times = made.get("input_times", [])
    seen = {(record["path"], record["bytes"], time) for record, time in zip(made["inputs"], times, strict=False)}
    if {(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in inputs} == seen:
        return True
    return {record["sha256"] for record in made["inputs"]} == {manifest.sha256(path) for path in inputs}
