"""The one lock of all commands.

Two starts never write the same output; the second is told who holds the lock.

    with lock.hold("runs/corpus"):
        ...

The lock is a hidden file `.NAME.lock` beside the output, where a link leads to it beside what it
leads to: an output has one lock, whatever name it is given. It is held by `flock`: the system lets
go of it when its process ends, however it ends, so that a killed command never leaves an output
locked.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galen import json_file
from galen.errors import DataError

logger = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system answers that has no locks, such as Lustre mounted without `flock`."""
_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _leave_to_parent() -> None:
    """In a forked process: close the locks, which would else be held as long as it lives."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextlib.contextmanager
def hold(output: str | Path) -> Iterator[None]:
    """Hold the lock of an output (a file, folder or prefix) while the block runs.

    Folders made for it are removed if nothing was written.

    Raises:
        DataError: another process holds it (the message says which), or its folder cannot be
            written.
    """
    path = lock_file(output)
    made = [folder for folder in path.parents if not folder.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _take(path)
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror}") from None
    if descriptor is None:
        raise _locked_error(output)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # a forked process has closed it
            _held.remove(descriptor)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            for folder in made:
                with contextlib.suppress(OSError):  # something is in it
                    folder.rmdir()


def check_free(output: str | Path) -> None:
    """Refuse an output that another process writes, before the work that comes before `hold`.

    For a start that is not one of several processes: they would refuse each other.

    Raises:
        DataError: another process holds its lock (the message says which).
    """
    path = lock_file(output)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # mostly: there is none
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked_error(output) from None
    except OSError:  # `hold` says what it is
        return
    finally:
        os.close(descriptor)


def _locked_error(output: str | Path) -> DataError:
    holder = _holder(lock_file(output))
    return DataError(f"{output} is being written by {holder}; wait for it, or end it first")


def lock_file(output: str | Path) -> Path:
    """Return the lock file of an output, beside the place that it stands for."""
    output = resolved_path(output)
    return output.with_name(f".{output.name}.lock")


def resolved_path(output: str | Path) -> Path:
    """Return where an output lies: links are followed, also one whose target is still to come."""
    return Path(os.path.realpath(output))


def holder(output: str | Path) -> dict[str, Any] | None:
    """Return `{pid, host, …}` of the process that holds an output's lock, or died with it.

    None without a record.
    """
    try:
        record = json_file.read_object(lock_file(output))
    except DataError:
        return None
    return record if {"pid", "host"} <= record.keys() else None


def create_exclusively(path: Path) -> int:
    """Create a working file, never through a link, and return its locked descriptor.

    A file that a killed command left is removed.

    Raises:
        DataError: another process is writing it.
        OSError: the system refuses.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileExistsError:
            _remove_stale(path)
            continue
        if _lock(descriptor) and _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # another start took it for stale between the two calls


def _remove_stale(path: Path) -> None:
    """Remove a killed command's file or a planted link; refuse a file that is being written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError:
        # a link, a device, a folder, or not ours to open: nothing that a command of ours writes
        path.unlink()
        return
    try:
        if not _lock(descriptor):
            raise DataError(
                f"{path} is being written by another process; wait for it, or end it first"
            )
        if _is_at(descriptor, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _take(path: Path) -> int | None:
    """Return the locked descriptor of a lock file that names this process, None if it is held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not _lock(descriptor):
            os.close(descriptor)
            return None
        if _is_at(descriptor, path):
            break
        # its holder removed it just before it let go: what is there now is another file
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_own_record()).encode(), 0)
    return descriptor


def _lock(descriptor: int) -> bool:
    """Lock an open file; return whether that was possible.

    A file system without locks gives no protection; a warning says so.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            return False
        logger.warning("this file system has no locks: do not start a command twice on it")
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _own_record() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        # not its arguments: they may hold a key
        "command": Path(sys.argv[0]).name if sys.argv else "",
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _holder(path: Path) -> str:
    """Say in words who holds a lock."""
    try:
        record = json_file.read_object(path)
        job = f", Slurm job {record['slurm_job']}" if record["slurm_job"] else ""
        name = shlex.quote(str(record["command"]))
        return f"{name} (process {record['pid']} on {record['host']}{job}) since {record['since']}"
    except (DataError, KeyError):  # just being written
        return "another process"
