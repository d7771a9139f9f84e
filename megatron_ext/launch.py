"""The processes of a run on a machine: how they are started, what is told when one ends, and the command that started them."""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from galen.errors import DataError, UsageError, one_line
from galen.stop_signals import StopSignals
from megatron_ext import watchdog

_KILLED = "a process of the run was killed by the system, most likely for lack of memory"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add torchrun's options that say where processes are to be started."""
    parser.add_argument("--nproc-per-node", type=int, metavar="N", help="start N processes on this machine")
    parser.add_argument("--nnodes", type=int, default=1, metavar="N", help="machines on which the same command is started [1]")
    parser.add_argument("--rdzv-endpoint", metavar="HOST:PORT", help="where several machines meet: a free port on one of them")


def start(options: argparse.Namespace, module: str, arguments: Sequence[str]) -> int:
    """Run a module in some processes of this machine, as torchrun does, and return the run's exit code.

    Signals are passed on to the processes, whose exit code tells what came of it.

    Args:
        options: those of `add_options`.
        module: what each process runs.
        arguments: what it is given.

    Raises:
        UsageError: this process is one of several itself, or the options do not fit each other.
        DataError: a process was killed, or the machines did not meet.
    """
    where = _where(options)
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    logging.disable(logging.ERROR)  # what it reports, the processes have said
    ends = "SIGQUIT" if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else "SIGHUP,SIGQUIT"  # `nohup` has SIGHUP ignored
    words = [*where, f"--nproc-per-node={options.nproc_per_node}", f"--signals-to-handle={ends}", "-m", module, *arguments]
    try:
        with _PassOn():
            torchrun.run(torchrun.parse_args(words))
    except ChildFailedError as error:
        _say_for_the_first(list(error.failures.values()))
        return _code([failure.exitcode for failure in error.failures.values()])
    except SignalException as signalled:
        return 128 + signalled.sigval
    except RendezvousError as error:
        raise DataError(f"the {options.nnodes} machines did not meet at {options.rdzv_endpoint}: {one_line(error)}") from None
    return 0


def _say_for_the_first(failures: Sequence[Any]) -> None:
    """Print why the run ended where another process met a mistake that the first one, which speaks for all, did not live to tell."""
    said = {failure.local_rank: failure.error_file_data["message"] for failure in failures}
    messages = {rank: message["message"] for rank, message in said.items() if "extraInfo" in message}
    first_spoke = 0 in messages or any(failure.local_rank == 0 and failure.exitcode > 0 for failure in failures)
    if messages and not first_spoke:
        print(f"error: {messages[min(messages)]}", file=sys.stderr)


def _where(options: argparse.Namespace) -> list[str]:
    """Return torchrun's words for the machines of a run.

    Raises:
        UsageError: the options do not fit each other.
    """
    if (options.nproc_per_node or 0) < 1 or options.nnodes < 1:
        raise UsageError(f"--nproc-per-node {options.nproc_per_node} --nnodes {options.nnodes}: each is at least 1")
    if "RANK" in os.environ:
        raise UsageError("--nproc-per-node starts the processes by itself: call it without torchrun or srun")
    if options.nnodes == 1:
        return ["--standalone"]
    if not options.rdzv_endpoint:
        raise UsageError("--nnodes needs --rdzv-endpoint HOST:PORT, the same on all machines: a free port on one of them")
    return [f"--nnodes={options.nnodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={options.rdzv_endpoint}"]


class _PassOn(StopSignals):
    """Passes signals on to the processes that this one has started; a second Ctrl-C ends them."""

    def _announce(self) -> None:
        """Leave it to the first process."""

    def _receive(self, number: int, frame: FrameType | None) -> None:
        started = psutil.Process().children()
        if not started:
            sys.exit(128 + number)
        try:
            super()._receive(number, frame)
        except KeyboardInterrupt:
            number = signal.SIGKILL
            raise
        finally:
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


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


def lost(error: RuntimeError | ConnectionError, run: Path) -> DataError | None:
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
