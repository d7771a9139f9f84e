"""Kills a converter as it touches its files for the Nth time, for many N; restarts, compares.

It is killed with SIGKILL.

Each line of standard input is a JSON list, script, folder, number of kills and the options without
the output; the answer is a JSON object. FOLDER/given, where it is there, is what a conversion in
place begins with. Each run is a forked process: killed for good, yet without the seconds that an
interpreter needs to start. The point is counted, not timed: a slow machine changes nothing, and
every kill is inside the work.
"""

import hashlib
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

from galen.log import configure as configure_log

EVENTS = (
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "shutil.copyfile",
)
LOADED_BEFORE = ("conversion.export_hf", "conversion.import_hf", "interop")


class Touches:
    """Counts a process's operations on files, writes included, and kills it at a number."""

    def __init__(self, folders: list[str], kill_at: int | None) -> None:
        self.folders = tuple(folders)
        self.kill_at = kill_at
        self.count = 0
        self._pwrite = os.pwrite
        os.pwrite = self.write
        sys.addaudithook(self.watch)

    def watch(self, event: str, arguments: tuple) -> None:
        if event in EVENTS and str(arguments[0]).startswith(self.folders):
            self.touch()

    def write(self, *arguments: object) -> int:
        written = self._pwrite(*arguments)
        self.touch()
        return written

    def touch(self) -> None:
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def convert(
    script: str,
    options: list[str],
    output: Path,
    kill_at: int | None,
    count_into: Path | None = None,
) -> int:
    """Convert in a forked process, killed as it touches a file for the `kill_at`-th time.

    Returns how it ended (-9 for killed).
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    log = os.open(output.parent / f"{script}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    touches = Touches(
        [str(output.parent), *(option for option in options if option.startswith("/"))], kill_at
    )
    code = 1
    configure_log()
    try:
        name = "--megatron" if script == "register_checkpoint" else "--output"
        importlib.import_module(f"checkpoints_convert.{script}").main([*options, name, str(output)])
        code = 0
    finally:
        if count_into:
            count_into.write_text(str(touches.count))
        sys.stdout.flush()
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file below `folder`.

    A manifest is hashed without the time at which it was written.
    """
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "manifest.json":
                data = json.dumps(json.loads(data) | {"created": None}).encode()
            hashes[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return hashes


def begin(folder: Path, output: Path) -> None:
    """Put what a conversion in place begins with at the output's place."""
    if (folder / "given").is_dir():
        shutil.copytree(folder / "given", output)


def points(touched: int, count: int, seed: str) -> list[int]:
    """Return a random number in each of `count` equal parts of 1 … `touched`, and both ends."""
    seeded = random.Random(seed)
    edges = [touched * part // count for part in range(count + 1)]
    chosen = [
        seeded.randint(low + 1, high) for low, high in itertools.pairwise(edges) if high > low
    ]
    return sorted({1, *chosen[1:-1], touched})


def attack(script: str, folder: Path, count: int, options: list[str]) -> dict[str, object]:
    """Convert undisturbed, then killed at `count` points and restarted; return what was seen."""
    begin(folder, folder / "never-killed")
    log = folder / f"{script}.log"
    assert convert(script, options, folder / "never-killed", None, folder / "touched") == 0, (
        log.read_text()
    )
    touched = int((folder / "touched").read_text())
    expected = content(folder / "never-killed")
    there = {path.name for path in folder.iterdir()} | {"output"}
    chosen = points(touched, count, script)
    killed = went_on = 0
    wrong = []
    for point in chosen:
        output = folder / "output"
        begin(folder, output)
        killed += convert(script, options, output, point) == -signal.SIGKILL
        log.write_text("")
        again = convert(script, options, output, None)
        went_on += "resuming: " in log.read_text()
        left = sorted({path.name for path in folder.iterdir()} - there)
        if again or content(output) != expected or left:
            wrong.append(
                {"point": point, "code": again, "left": left, "log": log.read_text()[-2000:]}
            )
        shutil.rmtree(output)
    return {
        "touched": touched,
        "points": len(chosen),
        "killed": killed,
        "went_on": went_on,
        "wrong": wrong,
    }


def main() -> None:
    for module in LOADED_BEFORE:  # in the parent, so that no child needs seconds for it
        importlib.import_module(f"checkpoints_convert.{module}")
    # many slices a file: killed in its middle, too
    importlib.import_module("checkpoints_convert.resumable_io.output_file")._BLOCK = 4096
    importlib.import_module("checkpoints_convert.conversion.weight_tasks").CHUNK_BYTES = 8000
    for line in sys.stdin:
        script, folder, count, options = json.loads(line)
        print(json.dumps(attack(script, Path(folder), count, options)), flush=True)


if __name__ == "__main__":
    main()
