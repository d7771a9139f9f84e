"""Programs of others, such as templates, in a process with limits on time and memory.

Jinja's sandbox blocks access to the system but not endless loops and texts. The caller sends lines
of text to a script, which answers each with a line:

    process = LimitedProcess(Path("worker.py"))
    line = process.ask("…")  # in the caller

    limited_process.serve(answer)  # in worker.py
"""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from galen.errors import DataError

SECONDS = 5.0
"""Processor time of one answer."""
MEMORY = 2**30
"""Bytes in addition to those at the start of the process."""
MAX_TEXT = 2**24
"""Characters of a rendered text."""
MEMORY_LIMIT = f"{MEMORY >> 30} GiB of memory"
TEXT_LIMIT = f"{MAX_TEXT:,} characters"
_READY = "ready"
_ROOT = Path(__file__).parent.parent


class LimitError(Exception):
    """A program exceeds a limit; the message is the limit, such as "1 GiB of memory"."""


class LimitedProcess:
    """A script in a process, started on first use and restarted after a program has ended it.

    Threads and forked processes may use it.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, line: str) -> str:
        """Return the answer to a line.

        Raises:
            LimitError: the process ended, since the program needs too much time or memory.
            DataError: the process does not start.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                raise LimitError(self._end(process))
            return answer

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._owner != os.getpid():  # a forked process has its parent's
            path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            process = subprocess.Popen(
                [sys.executable, str(self._script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert process.stdout is not None
            if process.stdout.readline().strip() != _READY:
                raise DataError(
                    f"{self._script.name} does not start; `{sys.executable} {self._script}` may"
                    " show why"
                )
            self._process = process
            self._owner = os.getpid()
        return self._process

    def _end(self, process: "subprocess.Popen[str]") -> str:
        """Return the resource that the process ran out of."""
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._process = None
        is_slow = process.wait() == -signal.SIGPROF
        return f"{SECONDS:.0f} s of processor time" if is_slow else "its process may have"


def serve(answer: Callable[[str], str]) -> None:
    """Answer the lines on standard input until it ends; of a process that `LimitedProcess` starts.

    Its memory is limited from now on. An answer that takes too long ends the process.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(_READY, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        reply = answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(reply, flush=True)
