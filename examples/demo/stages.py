"""Pipeline stages run as plain commands in sequence, skipping finished, unchanged ones."""

import fcntl
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from galen import json_file, recipe
from galen.atomic import write_text
from galen.errors import DataError

HISTORY = "stages.json"


@checked_dataclass(kw_only=True, config=recipe.STRICT)
class StageText:
    """A stage as written in the list, before its {variables} are substituted."""

    name: str
    """Short name, the key of the history."""
    title: str
    """Description shown to the user."""
    command: str
    """The command line."""
    when: dict[str, str] = Field(default_factory=dict)
    """Words appended to the command, by condition."""
    inputs: list[str] = Field(default_factory=list)
    """Input files and folders."""
    outputs: list[str]
    """Output files and folders; they exist once the stage is finished."""


@checked_dataclass(kw_only=True, config=recipe.STRICT)
class StageList:
    """All stages, in order."""

    stages: list[StageText]
    """The stages."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command with its input files, and its output files or folders."""

    name: str
    title: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...]

    def line(self) -> str:
        """Return the command line for a shell."""
        return shlex.join(self.command)


class StageError(DataError):
    """A stage's command ended with an error; carries its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class History:
    """Commands, inputs, outputs and times of the stages that ran, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self.stages = json_file.read_object(path)
            except DataError as error:
                raise DataError(f"{error}; remove it: each stage then checks its output") from None

    def is_done(self, stage: Stage, folder: Path) -> bool:
        """Return whether the stage finished and its command and files are unchanged since."""
        return self.stages.get(stage.name, {}).get("state") == _state(stage, folder)

    def seconds(self, stage: Stage) -> float:
        """Return the time of the stage, interrupted attempts included."""
        return float(self.stages.get(stage.name, {}).get("seconds", 0.0))

    def record(self, stage: Stage, folder: Path, seconds: float, done: bool) -> None:
        """Add the time of one attempt, and if it completed, the state of the stage's files."""
        seconds += self.seconds(stage)
        state = _state(stage, folder) if done else None
        self.stages[stage.name] = {
            "title": stage.title,
            "command": stage.line(),
            "seconds": round(seconds, 1),
            "state": state,
        }
        write_text(self.path, json.dumps(self.stages, indent=1, ensure_ascii=False) + "\n")


def load(
    path: Path, variables: Mapping[str, object], conditions: Collection[str] = ()
) -> list[Stage]:
    """Read a list of stages for the conditions that hold, and substitute the variables.

    Commands are split into words first, so that a path with spaces stays one word.
    """

    def substitute(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(word.format_map(variables) for word in words)

    stages = []
    for text in recipe.load(StageList, path).stages:
        command = [text.command]
        command += [words for condition, words in text.when.items() if condition in conditions]
        stage = Stage(
            name=text.name,
            title=text.title,
            command=substitute(shlex.split(" ".join(command))),
            inputs=tuple(map(Path, substitute(text.inputs))),
            outputs=tuple(map(Path, substitute(text.outputs))),
        )
        stages.append(stage)
    return stages


def run(stages: Sequence[Stage], folder: Path, work: Path) -> None:
    """Run in `folder` every stage that is not done; the history is kept in the folder `work`.

    Raises:
        StageError: a command failed, or did not leave its outputs.
        DataError: another run is in progress in `work`.
    """
    work.mkdir(parents=True, exist_ok=True)
    with _lock(work):
        history = History(work / HISTORY)
        for number, stage in enumerate(stages, start=1):
            print(f"\n[{number}/{len(stages)}] {stage.title}", flush=True)
            if history.is_done(stage, folder):
                print(f"      already finished, in {_duration(history.seconds(stage))}", flush=True)
                continue
            print(f"      $ {stage.line()}", flush=True)
            _run_one(stage, folder, history)
        print(f"\nAll {len(stages)} stages took {_duration(sum(map(history.seconds, stages)))}.")


def _run_one(stage: Stage, folder: Path, history: History) -> None:
    start = time.monotonic()
    code = None
    try:
        code = _call(stage.command, folder)
    finally:  # also when interrupted
        missing = [str(path) for path in stage.outputs if not (folder / path).exists()]
        history.record(stage, folder, time.monotonic() - start, done=code == 0 and not missing)
    advice = "Run the same command again to resume here, or `make demo-clean` to start over."
    if code:
        exit_code = code if code > 0 else 128 - code
        raise StageError(
            f"stage {stage.name!r} failed with exit code {exit_code}; its own message is above."
            f" {advice}",
            exit_code,
        )
    if missing:
        raise StageError(
            f"stage {stage.name!r} ended without an error, but {', '.join(missing)} is missing."
            f" {advice}",
            1,
        )
    print(f"      took {_duration(time.monotonic() - start)}", flush=True)


def _call(command: Sequence[str], folder: Path) -> int:
    """Run a command on our terminal, with this interpreter's programs first on the path.

    Return its exit code.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # threads that spin while they wait take several times as long when anything else runs
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PATH": path}
    with (
        subprocess.Popen(command, cwd=folder, env=environment) as process,
        _forward_termination(process),
    ):
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal interrupted the command too; let it clean up
            process.wait()
            raise


@contextmanager
def _forward_termination(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Terminate the command when this process is terminated."""

    def end(number: int, frame: object) -> None:
        process.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _lock(work: Path) -> Iterator[None]:
    with (work / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"another run is in progress in {work}; wait for it or choose another folder"
            ) from None
        yield


def _state(stage: Stage, folder: Path) -> dict[str, Any]:
    """Return the state of a stage: its command, and size and time of its input and output files.

    The stage runs again if it changes.
    """
    files = {str(path): _fingerprint(folder / path) for path in (*stage.inputs, *stage.outputs)}
    return {"command": list(stage.command), "files": files}


def _fingerprint(path: Path) -> str | None:
    """Return a hash over name, size and time of a file or a folder's files; None without any."""
    if not path.exists():
        return None
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    listing = [
        [str(item.relative_to(path)), item.stat().st_size, item.stat().st_mtime_ns]
        for item in files
    ]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
