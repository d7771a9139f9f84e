"""The processes of a command on a machine.

Starts them, reports when one ends, and keeps the command that started them.
"""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from galen import log, worker
from galen.errors import DataError, UsageError, one_line
from galen.stop_signals import StopSignals

_KILLED = "a process of the run was killed by the system, most likely for lack of memory"
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "DataLoader worker",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add torchrun's options that say where processes are to be started."""
    parser.add_argument(
        "--nproc-per-node", type=int, metavar="N", help="start N processes on this machine"
    )
    parser.add_argument(
        "--nnodes",
        type=int,
        default=1,
        metavar="N",
        help="machines on which the same command is started [1]",
    )
    parser.add_argument(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="where several machines meet: a free port on one of them",
    )


def is_asked(options: argparse.Namespace) -> bool:
    """Say whether the command line asks for processes to be started."""
    return (
        options.nproc_per_node is not None
        or options.nnodes != 1
        or options.rdzv_endpoint is not None
    )


def world_size(options: argparse.Namespace) -> int:
    """Return the number of processes that the options of `add_options` ask for.

    Raises:
        UsageError: it is below 1.
    """
    if (options.nproc_per_node or 0) < 1 or options.nnodes < 1:
        raise UsageError(
            f"--nproc-per-node {options.nproc_per_node} --nnodes {options.nnodes}: each is at"
            " least 1"
        )
    return int(options.nproc_per_node * options.nnodes)


def start(
    options: argparse.Namespace, program: str | Path, arguments: Sequence[str], advice: str
) -> int:
    """Run a module or script in several local processes, as torchrun does; return the exit code.

    Signals are passed on to the processes, whose exit code tells what came of it. They end when
    this one is killed.

    Args:
        options: those of `add_options`.
        program: what each process runs: the name of a module, or the path of a script.
        arguments: what it is given.
        advice: what helps against a lack of memory.

    Raises:
        UsageError: this process is one of several itself, or the options do not fit each other.
        DataError: a process was killed, or the machines did not meet.
    """
    where = _where(options)
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    # `nohup` has SIGHUP ignored
    ends = "SIGQUIT" if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else "SIGHUP,SIGQUIT"
    runs = [str(program)] if isinstance(program, Path) else ["-m", program]
    words = [
        *where,
        f"--nproc-per-node={options.nproc_per_node}",
        f"--signals-to-handle={ends}",
        *runs,
        *log.level_option(),
        *arguments,
    ]
    try:
        with _quiet_launcher(), _PassOn():
            torchrun.run(torchrun.parse_args(words))
    except ChildFailedError as error:
        return _ended(list(error.failures.values()), advice)
    except SignalException as signalled:
        return 128 + signalled.sigval
    except RendezvousError as error:
        raise DataError(
            f"the {options.nnodes} machines did not meet at {options.rdzv_endpoint}:"
            f" {one_line(error)}"
        ) from None
    return 0


@contextlib.contextmanager
def _quiet_launcher() -> Iterator[None]:
    """While processes run: they know their launcher, and it does not log what they have said.

    Afterwards nothing of it is left, for a notebook goes on.
    """
    disabled = logging.root.manager.disable
    known = worker.started_by_launcher()
    logging.disable(logging.ERROR)
    os.environ |= known
    try:
        yield
    finally:
        logging.disable(disabled)
        for name in known:
            os.environ.pop(name, None)


def _ended(failures: Sequence[Any], advice: str) -> int:
    """Return the exit code of a run some of whose processes failed.

    Says why, where a process that does not report met the mistake first.
    """
    found = {failure.local_rank: failure.error_file_data["message"] for failure in failures}
    left = {
        rank: report
        for rank, report in found.items()
        if isinstance(report, dict) and "exit_code" in report["extraInfo"]
    }
    if left and not any(report["extraInfo"]["printed"] for report in left.values()):
        print(f"error: {left[min(left)]['message']}", file=sys.stderr)
    ends = {failure.local_rank: failure.exitcode for failure in failures}
    ends |= {rank: report["extraInfo"]["exit_code"] for rank, report in left.items()}
    return _code(ends.values(), advice)


def _where(options: argparse.Namespace) -> list[str]:
    """Return torchrun's words for the machines of a run.

    Raises:
        UsageError: the options do not fit each other.
    """
    world_size(options)
    if "RANK" in os.environ:
        raise UsageError(
            "--nproc-per-node starts the processes by itself: call it without torchrun or srun"
        )
    if options.nnodes == 1:
        return ["--standalone"]
    if not options.rdzv_endpoint:
        raise UsageError(
            "--nnodes needs --rdzv-endpoint HOST:PORT, the same on all machines: a free port on one"
            " of them"
        )
    return [
        f"--nnodes={options.nnodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={options.rdzv_endpoint}",
    ]


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


def _code(codes: Collection[int], advice: str) -> int:
    """Return a run's exit code from those of its processes (negative: ended by a signal)."""
    told = [code for code in codes if code > 0]
    if told:  # by a process that has said why
        return min(told, key=_COMMON.index) if set(told) <= set(_COMMON) else max(told)
    if -signal.SIGKILL in codes:
        raise DataError(f"{_KILLED}: {advice}")
    return 128 - min(codes)


_COMMON = [2, 1, 75]
"""Exit codes, that of the cause before those of its consequences."""


@contextlib.contextmanager
def report_lost_nodes(advice: str, gone: Callable[[], Collection[str]] = tuple) -> Iterator[None]:
    """Report in one line that another process has ended.

    PyTorch can raise the error anywhere, also where a lock is released.

    Args:
        advice: what helps against a lack of memory.
        gone: returns the processes of the run that are known to have ended.

    Raises:
        DataError: a process of the run has ended, or one that reads ahead.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        if not any(words in str(error) for words in _LOST):
            raise
        known = gone()
        who = (
            f"{' and '.join(known)} of the run"
            if known
            else "a process of the run, or one that reads its data,"
        )
        raise DataError(
            f"{who} has ended ({one_line(error)[:150]}). If it said nothing, and nobody ended it,"
            f" the system has killed it, most likely for lack of memory: {advice}"
        ) from error


def command() -> str:
    """Return the command line that started this run, as a shell would take it."""
    words = list(sys.orig_argv)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with contextlib.suppress(psutil.Error):
            words = psutil.Process(os.getppid()).cmdline() or words
    if len(words) > 1 and Path(words[1]).name in ("torchrun", "galen"):
        words = words[1:]  # a script, which its interpreter was called with
    return shlex.join([Path(words[0]).name, *words[1:]])
