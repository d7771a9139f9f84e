"""The processes of a run on one machine: how they are started, what is told when one ends, and the command that started them."""

import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import psutil

from galen.errors import DataError, UsageError, one_line
from megatron_ext import watchdog

_KILLED = "a process of the run was killed by the system, most likely for lack of memory"


def start(processes: int, module: str, arguments: Sequence[str]) -> int:
    """Run a module in so many processes of this machine, as torchrun does, and return the run's exit code.

    Raises:
        UsageError: this process is one of several itself.
        DataError: a process was killed.
    """
    if processes < 1:
        raise UsageError(f"--nproc-per-node {processes}: at least 1")
    if "RANK" in os.environ:
        raise UsageError("--nproc-per-node starts the processes by itself: call it without torchrun or srun")
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")  # seconds for a checkpoint after Ctrl-C
    logging.disable(logging.ERROR)  # what it reports, the processes have said
    options = ["--standalone", f"--nproc-per-node={processes}", "-m", module, *arguments]
    try:
        torchrun.run(torchrun.parse_args(options))
    except ChildFailedError as error:
        return _code([failure.exitcode for failure in error.failures.values()])
    except SignalException as signalled:
        return 128 + signalled.sigval
    return 0


def _code(codes: Collection[int]) -> int:
    """Return the exit code of a run from those of its processes, negative where a signal ended one."""
    told = [code for code in codes if code > 0]
    if told:  # by a process that has said why
        return min(told, key=_COMMON.index) if set(told) <= set(_COMMON) else max(told)
    if -signal.SIGKILL in codes:
        raise DataError(f"{_KILLED}: {advice()}")
    return 128 - min(codes)


_COMMON = [2, 1, 75]
"""Exit codes, that of the cause before those of its consequences."""


def advice() -> str:
    """Say what helps against a lack of memory."""
    return (
        "`dmesg` or the job's record tells. Take fewer processes, a shorter data.seq_length, training.micro_batch_size=1, "
        "training.recompute_granularity=full or a smaller data.num_workers, and start the same command again: it goes on from the last "
        "checkpoint"
    )


def lost(error: RuntimeError, run: Path) -> DataError | None:
    """Return what to say where a library's error means that another process has ended: a process of the run, or one that reads ahead."""
    if not any(words in str(error) for words in _LOST):
        return None
    gone = [f"rank {note['rank']} (process {note['pid']})" for note in watchdog.notes(run) if watchdog.is_gone(note)]
    who = f"{' and '.join(gone)} of the run" if gone else "a process of the run, or one that reads its data,"
    return DataError(
        f"{who} has ended ({one_line(error)[:150]}). If it said nothing, and nobody ended it, the system has killed it, most likely for "
        f"lack of memory: {advice()}"
    )


_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "DataLoader worker")


def command() -> str:
    """Return the command line that started this run, as a shell would take it."""
    words = list(sys.orig_argv)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with contextlib.suppress(psutil.Error):
            words = psutil.Process(os.getppid()).cmdline() or words
    if len(words) > 1 and Path(words[1]).name == "torchrun":
        words = words[1:]  # a script, which its interpreter was called with
    return shlex.join([Path(words[0]).name, *words[1:]])
