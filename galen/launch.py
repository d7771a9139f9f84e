"""Local processes of a command: starts them, forwards signals, and reports how they ended."""

import argparse
import contextlib
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

from galen import cli, lock, log, recipe, worker
from galen.errors import DataError, UsageError, one_line
from galen.stop_signals import EXIT_STOPPED, StopSignals

API_FUNCTION = "GALEN_API_FUNCTION"
"""Environment variable with the function of `galen.api` that runs, also for its processes."""

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KILLED = "a process of the run was killed by the system, most likely for lack of memory"
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "DataLoader worker",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add torchrun's options for starting processes."""
    parser.add_argument(
        "--nproc-per-node", type=int, metavar="N", help="start N processes on this machine"
    )
    parser.add_argument(
        "--nnodes",
        type=int,
        default=1,
        metavar="N",
        help="number of machines that start the same command [1]",
    )
    parser.add_argument(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="rendezvous of several machines: a free port on one of them",
    )


def parse_recipe(
    description: str, recipe_class: type[T], argv: Sequence[str] | None
) -> tuple[argparse.Namespace, T]:
    """Parse the command line of a training command, which several processes may run.

    Args:
        description: the command's help.
        recipe_class: has a field `output`, the run folder.
        argv: arguments, or None for those of this process.

    Returns:
        The options of `add_options` with `recipe` and `overrides`, and the recipe.

    Raises:
        UsageError: an option or key is wrong.
        DataError: another process is writing the run folder.
    """
    parser = cli.recipe_parser(description, recipe_class)
    add_options(parser)
    options = parser.parse_intermixed_args(argv)
    run: Any = recipe.load(recipe_class, options.recipe, options.overrides)
    if "RANK" not in os.environ:  # processes of torchrun or srun check it together, later
        lock.check_free(run.output)
    return options, run


def is_requested(options: argparse.Namespace) -> bool:
    """Return whether the command line asks for processes to be started."""
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
            f"--nproc-per-node {options.nproc_per_node} --nnodes {options.nnodes}: each must be at"
            " least 1"
        )
    return int(options.nproc_per_node * options.nnodes)


def start(
    options: argparse.Namespace, program: str | Path, arguments: Sequence[str], advice: str
) -> int:
    """Run a module or script in several local processes, as torchrun does; return the exit code.

    Signals are forwarded to the processes, which decide the exit code. They end when this one is
    killed.

    Args:
        options: those of `add_options`.
        program: module name, or path of a script, that each process runs.
        arguments: its command line.
        advice: ways to save memory, for the message about a killed process.

    Raises:
        UsageError: this process is itself one of several, or options contradict each other.
        DataError: a process was killed, or the machines did not find each other.
    """
    rendezvous = _rendezvous_options(options)
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    # `nohup` ignores SIGHUP
    signals = "SIGQUIT" if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else "SIGHUP,SIGQUIT"
    target = [str(program)] if isinstance(program, Path) else ["-m", program]
    command_line = [
        *rendezvous,
        f"--nproc-per-node={options.nproc_per_node}",
        f"--signals-to-handle={signals}",
        *target,
        *log.level_option(),
        *arguments,
    ]
    try:
        with log.silenced("torch.distributed"), _known_to_processes(), _ForwardSignals():
            torchrun.run(torchrun.parse_args(command_line))
    except ChildFailedError as error:
        return _failed(list(error.failures.values()), advice)
    except SignalException as error:
        return 128 + error.sigval
    except RendezvousError as error:
        raise DataError(
            f"the {options.nnodes} machines did not find each other at {options.rdzv_endpoint}:"
            f" {one_line(error)}"
        ) from None
    return 0


@contextlib.contextmanager
def _known_to_processes() -> Iterator[None]:
    """Inside the block, processes that start here know their launcher."""
    variables = worker.started_by_launcher()
    os.environ |= variables
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def _failed(failures: Sequence[Any], advice: str) -> int:
    """Return the exit code of a run in which processes failed and reported why.

    Raises:
        GalenError: the process that met the error does not print errors, so this one does.
        DataError: a process was killed.
    """
    reports = {}
    for failure in failures:
        message = failure.error_file_data["message"]
        if isinstance(message, dict) and "exit_code" in message["extraInfo"]:
            reports[failure.local_rank] = message
    exit_codes = {failure.local_rank: failure.exitcode for failure in failures}
    for rank, report in reports.items():
        exit_codes[rank] = report["extraInfo"]["exit_code"]
    code = _exit_code(exit_codes.values(), advice)
    printed = any(report["extraInfo"]["printed"] for report in reports.values())
    if reports and not printed:
        message = reports[min(reports)]["message"]
        if code == UsageError.exit_code:
            raise UsageError(message)
        if code == DataError.exit_code:
            raise DataError(message)
        logger.info(message)
    return code


def _rendezvous_options(options: argparse.Namespace) -> list[str]:
    """Return torchrun's options for the machines of a run.

    Raises:
        UsageError: options contradict each other.
    """
    world_size(options)
    if "RANK" in os.environ:
        raise UsageError(
            "--nproc-per-node starts the processes: call the command without torchrun or srun"
        )
    if options.nnodes == 1:
        return ["--standalone"]
    if not options.rdzv_endpoint:
        raise UsageError(
            "--nnodes needs --rdzv-endpoint HOST:PORT, a free port on one of the machines and the"
            " same on all"
        )
    return [
        f"--nnodes={options.nnodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={options.rdzv_endpoint}",
    ]


class _ForwardSignals(StopSignals):
    """Forwards signals to the processes that this one started; a second Ctrl-C kills them."""

    def _announce(self) -> None:
        """Print nothing: the first process does."""

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


def _exit_code(codes: Collection[int], advice: str) -> int:
    """Return a run's exit code from those of its processes (negative: ended by a signal).

    Raises:
        DataError: a process was killed, and no other one reported an error.
    """
    reported = [code for code in codes if code > 0]
    if reported and set(reported) <= set(_CAUSES_FIRST):
        return min(reported, key=_CAUSES_FIRST.index)
    if reported:
        return max(reported)
    if -signal.SIGKILL in codes:
        raise DataError(f"{_KILLED}: {advice}")
    return 128 - min(codes)


_CAUSES_FIRST = [UsageError.exit_code, DataError.exit_code, EXIT_STOPPED]
"""Exit codes, that of the cause before those of its consequences."""


@contextlib.contextmanager
def report_lost_nodes(
    advice: str, ended_processes: Callable[[], Collection[str]] = tuple
) -> Iterator[None]:
    """Report in one line that another process of the run has ended.

    PyTorch can raise the error anywhere, also where a lock is released.

    Args:
        advice: ways to save memory.
        ended_processes: returns the processes of the run that are known to have ended.

    Raises:
        DataError: a process of the run or of a data loader has ended.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        if not any(text in str(error) for text in _LOST):
            raise
        names = " and ".join(ended_processes())
        process = f"{names} of the run" if names else "a process of the run or of its data loader"
        raise DataError(
            f"{process} has ended ({_first_sentence(error)}). If it printed no error and nobody"
            f" ended it, the system killed it, most likely for lack of memory: {advice}"
        ) from error


def _first_sentence(error: BaseException) -> str:
    """Return the first sentence of an error of PyTorch, without positions in its source."""
    text = re.sub(r"\[[^\]\s]*\.(cc|cpp|h):\d+\]\s*", "", one_line(error))
    return text.split(". ")[0][:150]


def command() -> str:
    """Return the command line that started this run, quoted for a shell.

    A run that a notebook or script started has none: it is resumed by the same call.
    """
    if function := os.environ.get(API_FUNCTION):
        return f"the same call of {function}"
    arguments = list(sys.orig_argv)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with contextlib.suppress(psutil.Error):
            arguments = psutil.Process(os.getppid()).cmdline() or arguments
    if len(arguments) > 1 and Path(arguments[1]).name in ("torchrun", "galen"):
        arguments = arguments[1:]  # without the interpreter of the script
    return shlex.join([Path(arguments[0]).name, *arguments[1:]])
