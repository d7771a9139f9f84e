"""Starts training processes within milliseconds: it has imported what they need already, and forks.

    python -m tests.megatron_ext.fork_server MODULE [MODULE …]    what to import; the first one's `main` is run

A line of JSON on standard input, `{"argv", "processes", "missing", "output"[, "hold"]}`, starts a run over that many processes, which
expect `missing` more that never come, and whose output goes to the file; the answer is the list of their ids. As with torchrun, when one
fails the others are ended. Then a second line holds their exit codes.
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
from pathlib import Path


def main():
    entry, *_ = [importlib.import_module(name) for name in sys.argv[1:]]
    answer(["ready"])
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        pids = [start(entry, request, rank, port) for rank in range(request["processes"])]
        answer(pids)
        answer(wait(pids))


def answer(message):
    print(json.dumps(message), flush=True)


def start(entry, request, rank, port):
    pid = os.fork()
    if pid:
        return pid
    file = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(request["processes"] + request["missing"])}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from galen import cli

    if "hold" in request:
        hold_writers(Path(request["hold"]))
    code = 1
    try:
        cli.run(lambda: entry.main(request["argv"]))
    except SystemExit as done:
        code = done.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def hold_writers(folder):
    """Let a process that would write a file of a checkpoint wait until the file `go` is in a folder."""
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
