"""Runs the steps of a conversion, each of which writes one file, and goes on where a killed run stopped."""

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from galen import manifest
from galen.atomic import write_text
from galen.progress import Progress

_PLAN = ".plan.json"


@dataclass(frozen=True)
class Step(ABC):
    """Writes one file of the output; sent to another process where several work."""

    file: str
    """Its name in the output folder."""

    @abstractmethod
    def run(self, path: Path) -> Any:
        """Write the file at `path` and return what the end of the conversion needs to know of it, as JSON types."""


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
    hashes are given up, but a file that is whole is still recorded, so that the next start keeps it.
    """
    done = [_read_result(folder, step) for step in steps]
    with (
        ThreadPoolExecutor(1) as recorder,
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
                _in_order(folder, missing, recorder, progress)
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


def _in_order(folder: Path, steps: Sequence[Step], recorder: ThreadPoolExecutor, progress: Progress) -> None:
    recorded: list[Future[None]] = []
    for step in steps:
        result = step.run(folder / step.file)
        recorded.append(recorder.submit(_record, folder, step, result))
        progress.update((folder / step.file).stat().st_size)
    for future in recorded:
        future.result()


def _shared(folder: Path, steps: Sequence[Step], workers: int, progress: Progress) -> None:
    """Let several processes do the steps."""
    with ProcessPoolExecutor(min(workers, len(steps)), mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        running = {pool.submit(_write_and_record, folder, step): step for step in steps}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    progress.update((folder / running.pop(future).file).stat().st_size)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed: it would write into the files of the next start."""

    def watch(parent: Any) -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, args=(parent_process(),), daemon=True).start()


def _write_and_record(folder: Path, step: Step) -> None:
    _record(folder, step, step.run(folder / step.file))


def _record(folder: Path, step: Step, result: Any) -> None:
    """Note that a step's file is whole: after this a new start will not write it again."""
    with (folder / step.file).open("rb+") as file:
        os.fsync(file.fileno())
    write_text(_result_path(folder, step), json.dumps({"result": result, "sha256": manifest.sha256(folder / step.file)}))


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
