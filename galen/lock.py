"""The output lock of all commands.

No two processes write the same output; the second one fails with an error that names the first.

    with lock.hold("runs/corpus"):
        ...

The lock is a hidden file `.NAME.lock` beside the output. Links are resolved first, so that an
output has one lock under all its names. The file is locked with `flock`, which the system releases
when the process ends, even if it is killed: no output stays locked.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from galen import json_file
from galen.errors import DataError

logger = logging.getLogger(__name__)

RECORD_SECONDS = 2.0
"""Maximum wait for the record of a holder that has just locked the file."""
POLL_SECONDS = 0.02

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of a file system without locks, such as Lustre mounted without `flock`."""
_held: set[int] = set()
"""Descriptors of the locks of this process."""


def _close_inherited_locks() -> None:
    """In a forked process: close the locks, which it would otherwise hold until it ends."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited_locks)


@contextlib.contextmanager
def hold(output: str | Path) -> Iterator[None]:
    """Hold the lock of an output (a file, folder or prefix) while the block runs.

    Folders created for it are removed if nothing was written.

    Raises:
        DataError: another process holds it (the message says which), or its folder cannot be
            written.
    """
    path = lock_file(output)
    new_folders = [folder for folder in path.parents if not folder.exists()]  # the deepest first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path, output)
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror}") from None
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # a forked process has closed it
            _held.remove(descriptor)
            path.unlink(missing_ok=True)
            os.close(descriptor)
            for folder in new_folders:
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()


def check_free(output: str | Path) -> None:
    """Refuse an output that another process writes, before the work that precedes `hold`.

    Not for one of several processes of a run: they would refuse each other.

    Raises:
        DataError: another process holds its lock (the message says which).
    """
    path = lock_file(output)
    deadline = time.monotonic() + RECORD_SECONDS
    while _is_locked(path):
        _refuse_or_wait(path, output, deadline)


def _is_locked(path: Path) -> bool:
    """Return whether another process holds a lock file; False if that cannot be determined."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # usually: there is none
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # `hold` reports it
        return False
    finally:
        os.close(descriptor)
    return False


def lock_file(output: str | Path) -> Path:
    """Return the lock file of an output; of a link, that of its target."""
    output = resolved_path(output)
    return output.with_name(f".{output.name}.lock")


def resolved_path(output: str | Path) -> Path:
    """Return the path of an output with all links resolved, even if the target does not exist."""
    return Path(os.path.realpath(output))


def holder(output: str | Path) -> dict[str, Any] | None:
    """Return `{pid, host, …}` of the process that holds an output's lock, or died holding it.

    None without a record.
    """
    return _read_record(lock_file(output))


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the record in a lock file, None if it is missing or not completely written."""
    try:
        record = json_file.read_object(path)
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
        os.close(descriptor)  # another start removed it as stale between the two calls


def _remove_stale(path: Path) -> None:
    """Remove a killed command's file or a planted link; refuse a file that is being written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError:
        # a link, a device, a folder, or a file of another user: none is written by our commands
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


def _acquire(path: Path, output: str | Path) -> int:
    """Return the locked descriptor of a lock file that names this process.

    Raises:
        DataError: another process holds it.
    """
    deadline = time.monotonic() + RECORD_SECONDS
    while (descriptor := _try_acquire(path)) is None:
        _refuse_or_wait(path, output, deadline)
    return descriptor


def _refuse_or_wait(path: Path, output: str | Path, deadline: float) -> None:
    """Refuse a locked output, or wait a moment for the record of the process that holds it.

    The lock may be newer than its record: then the file is empty or has the record of a killed
    process. The holder may also release it before its record is read.

    Raises:
        DataError: another process holds the lock.
    """
    record = _read_record(path)
    if time.monotonic() < deadline and (record is None or _has_ended(record)):
        time.sleep(POLL_SECONDS)
        return
    raise DataError(
        f"{output} is being written by {_describe(record)}; wait for it, or end it first"
    )


def _has_ended(record: Mapping[str, Any]) -> bool:
    """Return whether the process of a record is known to have ended."""
    if record["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(record["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, TypeError, OverflowError):  # another user's, or a damaged record
        return False
    return False


def _try_acquire(path: Path) -> int | None:
    """Return the locked descriptor of a lock file that names this process, None if it is held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not _lock(descriptor):
            os.close(descriptor)
            return None
        if _is_at(descriptor, path):
            break
        # its holder removed it just before releasing it: the path now names another file
        os.close(descriptor)
    _write_record(descriptor)
    return descriptor


def _write_record(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_own_record()).encode(), 0)


def _lock(descriptor: int) -> bool:
    """Lock an open file; return False if another process holds it.

    On a file system without locks, only warn that there is no protection.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            return False
        logger.warning("this file system has no locks: do not start a command twice on it")
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether a path still names an open file."""
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


def _describe(record: Mapping[str, Any] | None) -> str:
    """Return the process of a record in words."""
    if record is None or not {"command", "since", "slurm_job"} <= record.keys():
        return "another process"
    job = f", Slurm job {record['slurm_job']}" if record["slurm_job"] else ""
    name = shlex.quote(str(record["command"]))
    return f"{name} (process {record['pid']} on {record['host']}{job}) since {record['since']}"
