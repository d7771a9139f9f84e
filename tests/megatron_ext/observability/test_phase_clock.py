import json
import os
import subprocess
import sys
import time

import pytest

from megatron_ext.observability import goodput_records, phase_clock
from megatron_ext.observability.phase_clock import FILE, PhaseClock


@pytest.fixture
def clock(tmp_path):
    clock = PhaseClock(time.time() - 5)
    clock.open(tmp_path)
    return clock


def lines(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_each_moment_belongs_to_one_phase(clock, tmp_path):
    began = time.monotonic()
    clock.enter("train")
    items = clock.timed(iter([1, 2]), "data_wait")
    with clock.phase("checkpoint", line="save"):
        time.sleep(0.02)
        assert list(items) == [1, 2]
    time.sleep(0.02)
    clock.write("step", 3)
    clock.end("finished")
    clock.end("stopped")  # one is enough
    clock.close()
    elapsed = time.monotonic() - began
    first, step, last = lines(tmp_path)
    assert (first["kind"], first["step"], last["kind"], last["step"]) == ("save", 0, "end", 3)
    assert first["seconds"]["imports"] == pytest.approx(5, abs=0.5)
    assert last["seconds"].keys() == {"train"} and last["reason"] == "finished"
    total = sum(sum(line["seconds"].values()) for line in (first, step, last))
    assert total - first["seconds"]["imports"] == pytest.approx(elapsed, abs=0.01)
    assert first["seconds"]["checkpoint"] >= 0.02 > first["seconds"]["data_wait"]


def test_an_error_is_the_reason_of_the_end(clock, tmp_path):
    clock.close(ValueError, ValueError("x" * 1000), None)
    assert lines(tmp_path)[0]["reason"] == "failed"
    assert lines(tmp_path)[0]["detail"].startswith("ValueError: xxx")
    assert len(lines(tmp_path)[0]["detail"]) == 500


def test_a_half_line_of_a_killed_start_is_closed(tmp_path):
    (tmp_path / FILE).write_text('{"kind": "st')
    phase_clock.record_exit(tmp_path, 137)
    clock = PhaseClock(time.time())
    clock.open(tmp_path)
    clock.write("start", **phase_clock.start_fields(clock, tmp_path, 2))
    records = goodput_records.read(tmp_path)
    assert len(records.starts) == 1 and records.damaged_lines == 2  # the exit has no start


def test_a_folder_without_a_record_gets_none(tmp_path):
    phase_clock.record_exit(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_does_not_end_the_run(clock, tmp_path):
    class Full:
        def write(self, _line):
            raise OSError("no space left")

    file = clock._file
    clock._file = Full()
    clock.write("step")
    clock._file = file
    clock.write("step")
    (line,) = lines(tmp_path)
    assert line["seconds"]["imports"] >= 5  # nothing is lost


@pytest.mark.parametrize("cut", [-20, -1])
def test_a_disk_that_is_full_within_a_line(clock, tmp_path, cut):
    class AlmostFull:
        def write(self, content):
            return file.write(content[:cut])

    file = clock._file
    clock._file = AlmostFull()
    clock.write("start", **phase_clock.start_fields(clock, tmp_path, 2))
    clock._file = file
    clock.write("start", **phase_clock.start_fields(clock, tmp_path, 2))
    clock.close()
    records = goodput_records.read(tmp_path)
    assert records.damaged_lines == (cut != -1)
    seconds = [line.seconds.get("imports", 0) for one in records.starts for line in one.lines]
    assert 5 <= sum(seconds) < 8  # neither lost nor counted twice


def test_times_of_the_batch_job(clock, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("GALEN_JOB_SUBMIT", "1800000000")
    monkeypatch.setenv("GALEN_JOB_START", "Unknown")
    monkeypatch.setenv("GALEN_JOB_ELIGIBLE", "9" * 30)
    fields = phase_clock.start_fields(clock, tmp_path, 2)
    assert fields["job"] == {"id": 12, "submitted": 1800000000}


@pytest.mark.parametrize(
    "content", ["{}", '{"rank": 0, "seen": [], "host": 1}', "x", '{"rank": 0}']
)
def test_damaged_heartbeats_do_not_end_a_resume(tmp_path, content):
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats/rank_00000.json").write_text(content)
    assert phase_clock.last_heartbeats(tmp_path) == {}


def test_the_start_of_a_process_is_not_rounded_to_the_seconds_of_the_boot_time():
    program = """
from megatron_ext.observability.phase_clock import process_start
print(process_start())
"""
    before = time.time()
    started = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RANK": "0"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert before - 0.1 < float(started.stdout) < time.time()


def test_last_heartbeats(tmp_path):
    (tmp_path / "heartbeats").mkdir()
    for rank, (host, seen, phase) in enumerate(
        [("a", 1000, "end"), ("b", 850, "validation"), ("b", 800, "validation")]
    ):
        heartbeat = {"rank": rank, "host": host, "seen": seen, "since": 700, "phase": phase}
        heartbeat |= {"pid": 1, "step": 2}
        (tmp_path / f"heartbeats/rank_{rank:05d}.json").write_text(json.dumps(heartbeat))
    assert phase_clock.last_heartbeats(tmp_path) == {
        "last_seen": 1000,
        "phase_seconds": 150,
        "silent_hosts": ["b"],
    }


def test_a_line_costs_less_than_a_tenth_of_a_millisecond(clock):
    clock.enter("train")
    best = min(_seconds_per_step(clock) for _ in range(5))
    assert best < 1e-4


def _seconds_per_step(clock, steps=200):
    began = time.perf_counter()
    for number in range(steps):
        with clock.phase("checkpoint"):
            pass
        clock.write("step", number)
    return (time.perf_counter() - began) / steps
