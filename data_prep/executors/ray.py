"""Runs a datatrove pipeline on a Ray cluster, or on one that it starts on this machine.

Tasks, completion marks and statistics are the same as on one machine.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

from data_prep.executors.local import TaskExecutor
from galen.errors import DataError, GalenError, UsageError, install


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"--executor ray needs the package ray: {install('ray')}")


def _run_task(executor: TaskExecutor, rank: int) -> str | None:
    """On a worker: run one task; returns the message of a user's mistake."""
    try:
        executor.run_task(rank)
    except GalenError as error:
        return str(error)
    return None


class RayExecutor(TaskExecutor):
    """Runs the tasks as Ray tasks of one CPU each, `workers` at a time.

    RAY_ADDRESS is the address of the cluster.
    """

    executor_name = "RAY"

    def run(self, poll: Callable[[], None] = lambda: None) -> None:
        """Run the remaining tasks."""
        ranks = self.get_incomplete_ranks()
        if not ranks:
            return
        import ray

        if not ray.is_initialized():
            local: dict[str, Any] = {}
            if not os.environ.get("RAY_ADDRESS"):
                local = {"num_cpus": self.workers, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=False, **local)
        task = ray.remote(num_cpus=1, max_retries=2)(_run_task)
        executor = ray.put(self)
        pending = list(reversed(ranks))
        running: list[Any] = []
        try:
            while pending or running:
                while pending and len(running) < self.workers:
                    running.append(task.remote(executor, pending.pop()))
                done, running = ray.wait(running, timeout=0.5)
                poll()
                for message in ray.get(done):
                    if message is not None:
                        raise DataError(message)
        except ray.exceptions.RayError as error:
            raise DataError(
                f"a Ray task was killed: {error}; its log is in {self.folder / 'logs'}"
            ) from None
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
