"""Runs a converter and kills it with SIGKILL as it touches its files for the Nth time, for many N; starts it again; compares.

Usage: SCRIPT (hf_to_megatron or megatron_to_hf) INPUT FOLDER POINTS. Prints a JSON object. Each run is a forked process: killed for
good, yet without the seconds that an interpreter needs to start. The point is counted, not timed: a slow machine changes nothing.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from checkpoints_convert import units

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.copyfile")


def convert(script: str, given: Path, output: Path, kill_at: int | None, count_into: Path | None = None) -> int:
    """Convert in a forked process, killed as it touches a file for the `kill_at`-th time; return how it ended (-9 for killed)."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    touched = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal touched
        if event in EVENTS and str(arguments[0]).startswith((str(output.parent), str(given))):
            touched += 1
            if touched == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    log = os.open(output.parent / f"{script}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.addaudithook(watch)
    options = ["--hf", str(given)] if script == "hf_to_megatron" else ["--megatron", str(given), "--max-shard-bytes", "60000"]
    importlib.import_module(f"checkpoints_convert.{script}").main([*options, "--output", str(output)])
    if count_into:
        count_into.write_text(str(touched))
    os._exit(0)


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file below `folder`; of a manifest without the time at which it was written."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "manifest.json":
                data = json.dumps(json.loads(data) | {"created": None}).encode()
            hashes[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return hashes


def main() -> None:
    script, given, folder, points = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    importlib.import_module("checkpoints_convert.importing")  # in the parent, so that no child needs seconds for it
    importlib.import_module("checkpoints_convert.exporting")
    units.CHUNK_BYTES = 8000  # several pieces a tensor: killed in the middle of a file, too
    assert convert(script, given, folder / "never-killed", None, folder / "touched") == 0
    touched = int((folder / "touched").read_text())
    expected = content(folder / "never-killed")
    killed = went_on = 0
    wrong = []
    for point in sorted({1 + number * (touched - 1) // (points - 1) for number in range(points)}):
        output = folder / "output"
        killed += convert(script, given, output, point) == -signal.SIGKILL
        log = folder / f"{script}.log"
        log.write_text("")
        again = convert(script, given, output, None)
        went_on += "going on after" in log.read_text()
        if again or content(output) != expected or [path.name for path in folder.iterdir() if path.name.endswith(".partial")]:
            wrong.append({"point": point, "code": again, "log": log.read_text()[-2000:]})
        shutil.rmtree(output)
    print(json.dumps({"touched": touched, "killed": killed, "went_on": went_on, "wrong": wrong}))


if __name__ == "__main__":
    main()
