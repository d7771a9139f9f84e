"""Starts two steps that never end, each in a process of its own. Usage: FOLDER"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from checkpoints_convert.resumable_io.input_hashes import InputHashes
from checkpoints_convert.resumable_io.output_file import OutputFile
from checkpoints_convert.resumable_io.resumable_steps import Step, run_steps


@dataclass(frozen=True)
class Endless(Step):
    """Leaves its process's id and sleeps."""

    def run(self, output: OutputFile, reader: object) -> None:
        """Never return."""
        (output.path.parent / "pids" / str(os.getpid())).touch()
        while True:
            time.sleep(1)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "pids").mkdir()
    with InputHashes([]) as inputs:
        run_steps("test", folder, [Endless("a", 1), Endless("b", 1)], 2, inputs)
