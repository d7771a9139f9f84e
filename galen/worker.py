"""How a worker process behaves towards the process that started it."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

_LAUNCHER = "GALEN_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_SECONDS = 0.05
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def exit_with_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker only"
    parent.join()
    os._exit(1)


def exit_with_failed_child() -> None:
    """In a worker: exit with code 1 as soon as a process that it started was killed or failed.

    It would otherwise wait for that process' report for ever.
    """
    threading.Thread(target=_wait_for_failed_child, daemon=True).start()


def _wait_for_failed_child() -> None:
    children: dict[int | None, multiprocessing.process.BaseProcess] = {}
    while True:
        # those that have ended are listed no more
        children |= {child.pid: child for child in multiprocessing.active_children()}
        if any(child.exitcode not in (None, 0) for child in children.values()):
            os._exit(1)
        time.sleep(_POLL_SECONDS)


def started_by_launcher() -> dict[str, str]:
    """Return the environment by which the processes that this one starts know their launcher."""
    return {_LAUNCHER: str(os.getpid())}


def exit_with_launcher() -> None:
    """In a process that a launcher started: end when the launcher ends, however it ends.

    Elsewhere nothing happens. torchrun's agent starts processes in the launcher's main thread,
    which `die_with_parent` needs.
    """
    launcher = os.environ.pop(_LAUNCHER, None)  # not for what this process starts itself
    if launcher is not None:
        die_with_parent()
        if str(os.getppid()) != launcher:  # it has ended already
            os._exit(1)


def die_with_parent() -> None:
    """Have the system kill the process when the one that started it ends, however it ends.

    Used as `preexec_fn` of `subprocess.Popen`, or in the process itself.

    It has to be started by a thread that lives as long as its process. On Linux only; elsewhere
    nothing happens.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
