"""Starts training processes within milliseconds: it has imported what they need already, and forks.

    python -m tests.megatron_ext.fork_server MODULE [MODULE …]    what to import

A line of JSON on standard input, `{"module", "argv", "processes", "output", "torchrun", "missing",
"hold"}`, runs a module's `main` in so many processes, their output in a file. The answer is the
list of their ids, then a line with their exit codes. They expect `missing` more that never come.
When one fails the others are ended, as torchrun does; with `torchrun` that one is started, and
forks the others.
"""

import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path

from galen import cli
from megatron_ext import bootstrap


def main():
    bootstrap()
    for name in sys.argv[1:]:
        importlib.import_module(name)
    answer(["ready"])
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = range(request["processes"])
        works = (
            [partial(torchrun, request)]
            if request["torchrun"]
            else [partial(run, request, rank, port) for rank in ranks]
        )
        pids = [fork(work, request["output"]) for work in works]
        answer(pids)
        answer(wait(pids))


def answer(message):
    print(json.dumps(message), flush=True)


def fork(work, output):
    """Return the id of a new process that does some work, and whose output goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # whole lines: the processes of a run share the file
    sys.stdout.reconfigure(line_buffering=True, write_through=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    code = 1
    try:
        code = work()
    except SystemExit as done:
        code = done.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def run(request, rank, port):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(request["processes"] + request["missing"]),
    }
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SLURMD_NODENAME": f"n{rank}",
    }
    if request["hold"]:
        hold_writers(Path(request["hold"]))
    entry = importlib.import_module(request["module"])
    cli.run(lambda: entry.main(request["argv"]))


def torchrun(request):
    from torch.distributed.run import main

    options = [
        "--standalone",
        f"--nproc-per-node={request['processes']}",
        "--start-method=fork",
        "--run-path",
    ]
    main([*options, importlib.import_module(request["module"]).__file__, *request["argv"]])


def hold_writers(folder):
    """Make a process that would write a checkpoint file wait for the file `go` in a folder."""
    from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

    write = FileSystemWriterAsync.write_preloaded_data

    def held(*args, **options):
        (folder / f"writer_{os.getpid()}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        return write(*args, **options)

    FileSystemWriterAsync.write_preloaded_data = staticmethod(held)


def wait(pids):
    codes = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid] not in (0, 75):
            others = [other for other in pids if other not in codes]
            threading.Thread(target=end, args=(others, codes), daemon=True).start()
    return [codes[pid] for pid in pids]


def end(pids, codes, grace=5):
    """Give processes time to end by themselves, then end them."""
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(pid not in codes for pid in pids):
        time.sleep(0.01)
    for pid in pids:
        if pid not in codes:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
