"""Processes of a check: in a session of their own, ended at a limit with the stacks of all threads.

Each check has new processes, so that a crash or hang of the GPU ends only that check. On CPUs they
are forks of this process, which has imported the libraries (`preload`): a start then takes
milliseconds instead of seconds.
"""

import contextlib
import faulthandler
import importlib
import os
import resource
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from galen import worker

ROOT = Path(__file__).parents[2]
_PRELOADED = (
    "megatron_ext.pretrain",
    "megatron_ext.hardware.platforms",
    "megatron_ext.data.tokenized",
    "megatron_ext.observability.metrics_logger",
    "megatron_ext.training.trainer",
    "megatron_ext.planner.throughput_model",
    "checkpoints_convert.conversion.import_hf",
    "checkpoints_convert.conversion.export_hf",
    "transformers.models.llama.modeling_llama",
)
_RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
_STACK_SECONDS = 5.0
"""Time to write the stacks after a limit."""
_KILL_SECONDS = 10.0
"""Time to die after SIGKILL: a process inside a driver call can take longer."""
_OTHER_RANKS_SECONDS = 15.0
"""Time for the other ranks to end after one has failed."""


_state = {"preloaded": False}


def preload() -> None:
    """Import what checks on CPUs need, and let all processes from now on be forks of this one.

    Raises:
        ImportError: a library is missing.
    """
    from megatron_ext import bootstrap

    bootstrap()
    for name in _PRELOADED:
        importlib.import_module(name)
    _state["preloaded"] = True


class CheckProcesses:
    """The processes of a check, as many as it has ranks.

    Args:
        command: a script or `-m MODULE`, with its arguments.
        ranks: number of processes; several get torchrun's environment.
        log: file for their output; None for this process's output.
        environment: variables to set in addition to this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        ranks: int,
        log: Path | None,
        environment: Mapping[str, str],
    ) -> None:
        self.started = time.monotonic()
        self._pids: list[int] = []
        self._codes: dict[int, int] = {}
        self._failed_at: float | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("", encoding="utf-8")
        distributed = _rank_environments(ranks)
        for rank in range(ranks):
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if not pid:
                _run(command, log, {**environment, **distributed[rank]})
            self._pids.append(pid)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, once all have ended.

        When a rank fails, the others get some seconds to end themselves.
        """
        self._reap()
        failed = [code for code in self._codes.values() if code]
        if len(self._codes) == len(self._pids):
            self.signal(signal.SIGKILL)  # what they may have left running
            return failed[0] if failed else 0
        if failed and self._failed_at is None:
            self._failed_at = time.monotonic()
        if (
            self._failed_at is not None
            and time.monotonic() - self._failed_at > _OTHER_RANKS_SECONDS
        ):
            self.end()
            return failed[0]
        return None

    def end(self) -> bool:
        """Write the stacks of all threads to the log and kill; return whether all have ended.

        On SIGABRT faulthandler prints them, also inside a C call. Processes that these started as
        sessions of their own come first: they die with those.
        """
        for pids in (self._nested(), self._pids):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGABRT)
            if pids:
                self._wait(_STACK_SECONDS, pids)
        return self.kill()

    def kill(self) -> bool:
        """Kill the processes and those that they started; return whether all have ended."""
        self.signal(signal.SIGKILL)
        return self._wait(_KILL_SECONDS, self._pids)

    def signal(self, number: int) -> None:
        """Send a signal to the processes and those that they started."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def _nested(self) -> list[int]:
        """Return descendants that lead a session, as a check's own `CheckProcesses` do."""
        import psutil

        nested = []
        for pid in self._pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(pid).children(recursive=True)
                nested += [child.pid for child in children if _leads_session(child.pid)]
        return nested

    def _wait(self, seconds: float, pids: Sequence[int]) -> bool:
        """Wait for processes; return whether all have ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._reap()
            if not any(self._is_running(pid) for pid in pids):
                return True
            time.sleep(0.02)
        return False

    def _is_running(self, pid: int) -> bool:
        return _leads_session(pid) if pid not in self._pids else pid not in self._codes

    def _reap(self) -> None:
        for pid in self._pids:
            if pid not in self._codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._codes[pid] = os.waitstatus_to_exitcode(status)


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _rank_environments(ranks: int) -> list[dict[str, str]]:
    """Return torchrun's variables for each rank; none for a single process."""
    if ranks == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    size = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    return [
        {**address, **size, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)
    ]


def _run(command: Sequence[str], log: Path | None, environment: Mapping[str, str]) -> NoReturn:
    """Become the process of a check; never returns to the caller."""
    code = 1
    try:
        os.setsid()
        worker.die_with_parent()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if log is not None:
            output = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for name in _RANK_VARIABLES:  # of a launcher of this check
            os.environ.pop(name, None)
        os.environ |= environment
        os.environ["PYTHONFAULTHANDLER"] = "1"
        os.chdir(ROOT)
        code = _main(command)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(command: Sequence[str]) -> int:
    """Run the command here if its libraries are imported, else in place of this process."""
    if not _state["preloaded"]:
        paths = (str(ROOT), os.environ.get("PYTHONPATH"))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.execv(sys.executable, [sys.executable, "-u", *command])
    faulthandler.enable(file=2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if command[0] == "-m":
            sys.argv = list(command[1:])
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(command)
            sys.path.insert(0, str((ROOT / command[0]).parent))
            runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
