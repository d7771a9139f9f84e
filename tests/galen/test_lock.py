import json
import os
import socket
import subprocess
import sys
import time

import pytest

from galen import lock
from galen.atomic import atomic_file, atomic_folder, write_text
from galen.errors import DataError
from tests.conftest import ROOT

HOLD = """
import sys, time
from galen import lock
with lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path/out."""
    script = tmp_path / "holder.py"
    script.write_text(HOLD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, tmp_path / "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


UNRECORDED = """
import sys, time
from galen import lock
write = lock._write_record
def write_late(descriptor):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    if sys.argv[3] == "write":
        write(descriptor)
lock._write_record = write_late
with lock.hold(sys.argv[1]):
    if sys.argv[3] == "write":
        time.sleep(60)
"""


@pytest.fixture
def start_unrecorded(tmp_path):
    """Start a process that holds the lock of tmp_path/out, but does not record itself at once."""
    processes = []

    def start(seconds, then):
        script = tmp_path / "late.py"
        script.write_text(UNRECORDED)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, script, tmp_path / "out", str(seconds), then]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("content", ["", '{"pid": 1', "a killed process"])
@pytest.mark.parametrize("function", ["hold", "check_free"])
def test_a_second_start_waits_for_the_record_of_the_first(
    tmp_path, start_unrecorded, content, function
):
    """The locked file is empty, incomplete, or has the record of a killed process."""
    if content == "a killed process":
        ended = subprocess.Popen(["true"])
        ended.wait()
        record = {"pid": ended.pid, "host": socket.gethostname(), "since": "2020"}
        content = json.dumps({**record, "command": "ended.py", "slurm_job": None})
    lock.lock_file(tmp_path / "out").write_text(content)
    process = start_unrecorded(0.3, "write")
    message = f"out is being written by late.py \\(process {process.pid} on .*since 20"
    with pytest.raises(DataError, match=message):
        if function == "hold":
            with lock.hold(tmp_path / "out"):
                pass
        else:
            lock.check_free(tmp_path / "out")


def test_a_second_start_works_if_the_first_ends_before_it_is_reported(tmp_path, start_unrecorded):
    start_unrecorded(0.3, "end")
    with lock.hold(tmp_path / "out"):
        pass


def test_a_holder_without_a_record_is_reported_without_details(
    tmp_path, start_unrecorded, monkeypatch
):
    monkeypatch.setattr(lock, "RECORD_SECONDS", 0.1)
    start_unrecorded(60, "end")
    with (
        pytest.raises(DataError, match="out is being written by another process; wait"),
        lock.hold(tmp_path / "out"),
    ):
        pass


def test_a_second_start_names_the_holder_of_the_lock(tmp_path, holder):
    message = f"out is being written by holder.py \\(process {holder.pid} on .*since 20"
    with pytest.raises(DataError, match=message), lock.hold(tmp_path / "out"):
        pass
    with pytest.raises(DataError, match=message), atomic_folder(tmp_path / "out"):
        pass


def test_a_locked_output_is_refused_before_the_work_begins(tmp_path, holder):
    with pytest.raises(DataError, match=f"out is being written by holder.py .process {holder.pid}"):
        lock.check_free(tmp_path / "out")
    holder.kill()
    holder.wait()
    assert lock.lock_file(tmp_path / "out").exists()
    lock.check_free(tmp_path / "out")
    lock.check_free(tmp_path / "none" / "out")
    assert not (tmp_path / "none").exists()


def test_a_killed_holder_leaves_nothing_locked(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock.hold(tmp_path / "out"):
        pass
    assert not lock.lock_file(tmp_path / "out").exists()


def test_a_forked_process_does_not_hold_the_lock(tmp_path):
    with lock.hold(tmp_path / "out"):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with lock.hold(tmp_path / "out"):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_the_same_lock_twice_in_one_process_is_refused(tmp_path):
    with (
        lock.hold(tmp_path / "out"),
        pytest.raises(DataError, match="being written"),
        lock.hold(tmp_path / "out"),
    ):
        pass


def test_simultaneous_starts_write_one_after_the_other(tmp_path):
    """Each process that gets the lock has it alone.

    No two are inside at once, even while the file is removed and created again.
    """
    script = tmp_path / "many.py"
    script.write_text(
        "import os, sys\nfrom galen import lock\nfrom galen.errors import DataError\ninside ="
        " sys.argv[1] + '.inside'\nfor _ in range(200):\n    try:\n        with"
        " lock.hold(sys.argv[1]):\n            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))\n "
        "           os.unlink(inside)\n    except DataError:\n        pass\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, tmp_path / "out"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]


def test_a_planted_link_in_place_of_the_working_file_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".out.partial").symlink_to(precious)
    write_text(tmp_path / "out", "new")
    assert (precious.read_text(), (tmp_path / "out").read_text()) == ("mine", "new")


def test_a_planted_link_in_place_of_the_working_folder_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (tmp_path / ".out.partial").symlink_to(precious)
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (precious / "file").exists()
    assert not (tmp_path / "out").is_symlink()


def test_a_working_file_in_use_is_refused_and_a_stale_one_replaced(tmp_path):
    (tmp_path / ".left.partial").write_text("half")
    write_text(tmp_path / "left", "whole")
    assert (tmp_path / "left").read_text() == "whole"
    with (
        atomic_file(tmp_path / "out") as path,
        pytest.raises(DataError, match="being written by another process"),
        atomic_file(tmp_path / "out"),
    ):
        path.write_text("mine")
    assert not path.exists()


def test_folders_created_for_a_lock_are_removed_if_nothing_was_written(tmp_path):
    with pytest.raises(DataError, match="a typo"), lock.hold(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b").is_dir()
        raise DataError("a typo")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with lock.hold(tmp_path / "a" / "b" / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # it was there
    with lock.hold(tmp_path / "a" / "b" / "out"):
        write_text(tmp_path / "a" / "b" / "out", "kept")
    assert (tmp_path / "a" / "b" / "out").read_text() == "kept"


@pytest.mark.parametrize("exists", [True, False])
def test_an_output_has_one_lock_by_its_own_name_and_by_a_link(tmp_path, exists):
    if exists:
        (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to("../real")
    with (
        lock.hold(tmp_path / "real"),
        pytest.raises(DataError, match="elsewhere/link is being written by"),
        lock.hold(link),
    ):
        pass
    with (
        lock.hold(link),
        pytest.raises(DataError, match=f"{tmp_path}/real is being written by"),
        lock.hold(tmp_path / "real"),
    ):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == [link]
