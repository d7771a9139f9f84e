"""Runs a datatrove pipeline as a Slurm job array and waits for it.

Tasks, completion marks and statistics are the same as on one machine.
"""

import json
import logging
import math
import pickle
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from data_prep.executors.local import TaskExecutor
from galen.atomic import write_text
from galen.errors import DataError, UsageError

logger = logging.getLogger(__name__)

MAX_JOBS = 1000
"""Jobs in an array, one less than Slurm's default limit (MaxArraySize).

With more tasks a job runs several, one after the other.
"""

_POLL_SECONDS = 2.0
_JOB_FILE = "job"
"""In the log folder of a stage: the id of its running job array."""


def check_slurm() -> None:
    """Check that jobs can be submitted from here.

    Raises:
        UsageError: there is no Slurm, or its controller does not answer.
    """
    for command in ("sbatch", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise UsageError(
                f"--executor slurm needs Slurm's {command}, which is not on this machine; run it on"
                " a login node"
            )
    result = subprocess.run(["squeue", "--noheader", "--me"], capture_output=True, text=True)
    if result.returncode:
        raise UsageError(f"Slurm does not answer: {result.stderr.strip()}")


def cancel_leftover_jobs(working_folder: Path) -> None:
    """Cancel the job arrays that a killed command left running, and wait until they are gone.

    Else their tasks would write to the working folder at the same time as the next run, even if
    that is another run or uses another executor.

    Raises:
        DataError: there is such a job, and no Slurm on this machine to cancel it.
    """
    for path in sorted((working_folder / "log").glob(f"*/{_JOB_FILE}")):
        job = path.read_text(encoding="utf-8")
        if shutil.which("scancel") is None or shutil.which("squeue") is None:
            raise DataError(
                f"the Slurm job {job} of an interrupted run may still be writing to"
                f" {working_folder}: repeat the command on a machine with Slurm, or cancel the job"
                f" there and remove {path}"
            )
        logger.info(f"canceling the Slurm job {job} of an interrupted run")
        _cancel(job)
        path.unlink()


class SlurmExecutor(TaskExecutor):
    """Runs the tasks in a job array; `workers` of its jobs at a time.

    Args:
        pipeline, tasks, workers, logging_dir: see TaskExecutor.
        arguments: more options for sbatch.
    """

    executor_name = "SLURM"

    def __init__(
        self,
        pipeline: list[PipelineStep],
        tasks: int,
        workers: int,
        logging_dir: str | Path,
        arguments: Sequence[str],
    ) -> None:
        super().__init__(pipeline, tasks, workers, Path(logging_dir).absolute())
        self.arguments = list(arguments)

    def run(self, poll: Callable[[], None] = lambda: None) -> None:
        """Run the remaining tasks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        job_path = self.folder / _JOB_FILE
        ranks = self.get_incomplete_ranks()
        if not ranks:
            return
        shutil.rmtree(self.folder / "errors", ignore_errors=True)
        (self.folder / "executor.pickle").write_bytes(pickle.dumps(self))
        write_text(self.folder / "ranks.json", json.dumps(ranks))
        job = self._submit(len(ranks))
        write_text(job_path, job)
        try:
            while self.get_incomplete_ranks(ranks) and _is_running(job) and not self._errors():
                time.sleep(_POLL_SECONDS)
                poll()
        finally:
            _cancel(job)
            job_path.unlink()
        if error := self._errors():
            raise DataError(error)
        if remaining := self.get_incomplete_ranks(ranks):
            raise DataError(
                f"the Slurm job {job} ended with {len(remaining)} of {len(ranks)} tasks not done;"
                f" its output is in {self.folder / 'slurm'}; repeat the command to resume"
            )

    def _submit(self, tasks: int) -> str:
        size = math.ceil(tasks / MAX_JOBS)
        (self.folder / "slurm").mkdir(exist_ok=True)
        task = shlex.join(
            [sys.executable, "-m", "data_prep.executors.slurm_task", str(self.folder), str(size)]
        )
        command = [
            "sbatch",
            "--parsable",
            f"--array=0-{math.ceil(tasks / size) - 1}%{self.workers}",
            "--job-name=curate",
        ]
        command += [
            f"--output={self.folder}/slurm/%a.out",
            f"--chdir={Path(__file__).parents[2]}",
            "--requeue",
            "--ntasks=1",
        ]
        result = subprocess.run(
            [*command, *self.arguments, "--wrap", f"exec {task}"], capture_output=True, text=True
        )
        if result.returncode:
            raise UsageError(f"sbatch refuses the job: {result.stderr.strip()}; see --slurm-args")
        return result.stdout.strip().split(";")[0]

    def _errors(self) -> str | None:
        """Return the first message that a task left."""
        for path in sorted((self.folder / "errors").glob("*")):
            return path.read_text(encoding="utf-8")
        return None


def _is_running(job: str) -> bool:
    result = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True)
    # the controller is busy or restarts
    if result.returncode and "Invalid job id" not in result.stderr:
        return True
    return bool(result.stdout.strip())


def _cancel(job: str) -> None:
    """Cancel a job and wait until its tasks are gone: two must not write one file."""
    subprocess.run(["scancel", job], capture_output=True)
    while _is_running(job):
        time.sleep(0.5)
