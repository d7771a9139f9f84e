"""Runs a datatrove pipeline in tasks, quietly, and survives being killed.

The tasks run on this machine, in their own processes.
"""

import contextlib
import errno
import multiprocessing
import os
import resource
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm

from galen import json_file
from galen.errors import DataError
from galen.main_guard import check_main_guard
from galen.worker import exit_with_parent

logger.remove()  # datatrove's import sets up a log on the terminal; tasks log into files


class TaskExecutor(PipelineExecutor):
    """Runs the tasks that are not marked as completed in `logging_dir`, `workers` at a time.

    Args:
        pipeline: datatrove steps.
        tasks: number of tasks; the result must not depend on `workers`.
        workers: tasks at a time.
        logging_dir: folder for logs, statistics and completion marks, which all tasks must see.
    """

    executor_name = "LOCAL"

    def __init__(
        self, pipeline: list[PipelineStep], tasks: int, workers: int, logging_dir: str | Path
    ) -> None:
        super().__init__(pipeline, str(logging_dir))
        self.tasks = tasks
        self.workers = workers
        self.folder = Path(logging_dir)

    @property
    def world_size(self) -> int:
        """The number of tasks."""
        return self.tasks

    def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
        """Return the environment that datatrove expects in a task on one machine."""
        return DistributedEnvVars(
            datatrove_node_ips="localhost",
            datatrove_cpus_per_task="-1",
            datatrove_mem_per_cpu="-1",
            datatrove_gpus_on_node="-1",
            datatrove_executor=self.executor_name,
        )

    @abstractmethod
    def run(self, poll: Callable[[], None] = lambda: None) -> None:
        """Run the remaining tasks; `poll` is called now and then, to show progress.

        Raises:
            DataError: from a step, or when the system ended a task.
        """

    def run_task(self, rank: int) -> None:
        """Run one task in this process, with as many open files as the system allows.

        The shuffle deals to thousands.
        """
        _, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
        try:
            self._run_for_rank(rank)
        except OSError as error:  # a write to a full disk does not say where
            if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            working_folder = self.folder.parents[1]
            raise DataError(
                f"{working_folder}: {error.strerror}; free some space and repeat the command, which"
                " resumes"
            ) from None

    def task_counts(self, rank: int) -> list[Counter[str]]:
        """Return the sums of one task's statistics, for each step in order."""
        steps = json_file.read(self.folder / f"stats/{rank:05d}.json")
        return [_totals(step["stats"]) for step in steps]

    def counts(self, position: int) -> Counter[str]:
        """Return the sums of a step's statistics over all tasks.

        `position` is its index in the pipeline, negative from the end.
        """
        sums: Counter[str] = Counter()
        for rank in range(self.tasks):
            sums.update(self.task_counts(rank)[position])
        return sums

    def bytes_read(self) -> int:
        """Return the bytes that the tasks have read so far."""
        total = 0
        for path in (self.folder / "progress").glob("*"):
            with contextlib.suppress(OSError, ValueError):  # just being written
                total += int(path.read_text())
        return total


def _totals(stats: dict[str, Any]) -> Counter[str]:
    """Return the sums of a step's statistics."""
    return Counter({key: _total(value) for key, value in stats.items()})


def _total(value: Any) -> int:
    """Return the sum of one of datatrove's statistics."""
    return int(value["total"] if isinstance(value, dict) else value)


class LocalExecutor(TaskExecutor):
    """Runs the tasks in processes on this machine."""

    def run(self, poll: Callable[[], None] = lambda: None) -> None:
        """Run the remaining tasks; `poll` is called twice a second."""
        ranks = self.get_incomplete_ranks()
        if not ranks:
            return
        check_main_guard()
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "workers.log"
        context = multiprocessing.get_context("forkserver")
        # workers start at once
        context.set_forkserver_preload([type(step).__module__ for step in self.pipeline])
        with ProcessPoolExecutor(
            min(self.workers, len(ranks)), context, _prepare_worker, (str(log),)
        ) as pool:
            try:
                self._run_in(pool, ranks, poll)
            except BrokenProcessPool:
                raise DataError(
                    "a worker was killed, perhaps for lack of memory: try fewer --workers; its log"
                    f" is {log}"
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                # running tasks would continue to their end
                for process in multiprocessing.active_children():
                    process.terminate()
                raise

    def _run_in(
        self, pool: ProcessPoolExecutor, ranks: Sequence[int], poll: Callable[[], None]
    ) -> None:
        """Run tasks in a pool; raises the first error of a task."""
        try:
            running = {pool.submit(self.run_task, rank) for rank in ranks}
        except (EOFError, ConnectionError):  # the process that starts the workers is gone
            raise BrokenProcessPool from None
        while running:
            done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            poll()
            for task in done:
                task.result()


def _prepare_worker(log: str) -> None:
    """Redirect the output of libraries in a new worker into the log."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # else datatrove's disabled bars make a semaphore each, left behind when a worker is ended
    tqdm.set_lock(threading.RLock())
    exit_with_parent()
