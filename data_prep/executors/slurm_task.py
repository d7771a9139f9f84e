"""One job of the array that data_prep/executors/slurm.py submits.

Usage: `python -m data_prep.executors.slurm_task FOLDER TASKS_A_JOB`.
"""

import os
import pickle
import sys
from pathlib import Path

from galen import json_file
from galen.atomic import write_text
from galen.errors import GalenError


def main(folder: Path, size: int) -> int:
    """Run this job's tasks; a user's mistake is left in `errors/` for the command that waits."""
    # written by the command that submitted this job
    executor = pickle.loads((folder / "executor.pickle").read_bytes())
    job = int(os.environ["SLURM_ARRAY_TASK_ID"])
    ranks = json_file.read(folder / "ranks.json")
    for rank in ranks[job * size : (job + 1) * size]:
        try:
            executor.run_task(rank)
        except GalenError as error:
            write_text(folder / "errors" / f"{rank:05d}", str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
