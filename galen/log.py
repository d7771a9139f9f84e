"""Logging of all commands: time, level and, where several processes run, the rank of each line.

Modules log with `logging.getLogger(__name__)`; results are printed, everything else is logged.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

LEVELS = ("debug", "info", "warning", "error")
"""Values of `--log-level`."""

_RANK_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""Set for each process by torchrun, and by srun."""


class _StderrHandler(logging.Handler):
    """Writes to what `sys.stderr` is at the time of the line."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    """`2026-11-30 12:00:00 INFO message`; of several processes, `… INFO rank 3: message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        if (rank := _rank()) is not None:
            record.message = f"rank {rank}: {record.message}"
        return super().formatMessage(record)


def configure(level: str = "info") -> None:
    """Log to standard error from `level` on; libraries from warnings on.

    A second call changes the level.

    Args:
        level: one of `LEVELS`.
    """
    root = logging.getLogger()
    if not any(isinstance(handler, _StderrHandler) for handler in root.handlers):
        handler = _StderrHandler()
        handler.setFormatter(_Formatter())
        root.addHandler(handler)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


def level_option() -> list[str]:
    """Return this process' `--log-level`, for the processes that this one starts."""
    level = logging.getLogger("galen").level
    return [f"--log-level={logging.getLevelName(level).lower()}"] if level else []


@contextlib.contextmanager
def silenced(package: str) -> Iterator[None]:
    """Inside the block, drop the log records of a library and all its modules."""
    logger = logging.getLogger(package)
    handlers = logger.handlers
    propagate = logger.propagate
    logger.handlers = [logging.NullHandler()]
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.propagate = propagate


PACKAGES = (
    "__main__",
    "galen",
    "data_prep",
    "checkpoints_convert",
    "megatron_ext",
    "finetune",
    "evaluation",
)
"""Loggers of Galen's own modules; `__main__` is a command that is run as a script."""


def _rank() -> str | None:
    """Return the rank of this process, or None where it is the only one."""
    for rank, world_size in _RANK_VARIABLES:
        if int(os.environ.get(world_size, "1")) > 1:
            return os.environ.get(rank)
    return None
