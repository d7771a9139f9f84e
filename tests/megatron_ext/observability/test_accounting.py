"""The wall time of simulated runs: each cause of an end, and all that a file can lack."""

import json

import pytest

from megatron_ext.observability import accounting, goodput
from megatron_ext.observability.phase_clock import FILE

NODE = {"last_seen": 0.0, "phase_seconds": 1.0, "silent_hosts": []}


class Run:
    """Writes the lines of a run whose steps take a second, a quarter of it for data.

    A start takes 30 seconds, a save 2, a validation 4.
    """

    def __init__(self, folder):
        self.path = folder / FILE
        self.now = 1_800_000_000.0
        self.step = 0

    def write(self, kind, seconds=None, **fields):
        seconds = seconds or {}
        self.now += sum(seconds.values())
        line = {"kind": kind, "time": self.now, "step": self.step, "seconds": seconds, **fields}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def start(self, resumed, job=None, previous=None, layout="TP1 PP1 CP1 DP2"):
        self.step = resumed
        fields = {"began": self.now, "galen": "0", "host": "n1", "ranks": 2}
        fields |= {"job": job or {}, "previous": previous or {}}
        self.write("start", {"imports": 10, "process_group": 5}, **fields)
        startup = {"model": 3, "checkpoint_load": 8, "data_index": 4}
        self.write("ready", startup, layout=layout, hang_limit=600)

    def steps(self, last):
        while self.step < last:
            self.step += 1
            self.write("step", {"train": 0.75, "data_wait": 0.25})

    def save(self):
        self.write("save", {"checkpoint": 2})

    def end(self, reason, detail=""):
        self.write("end", {"shutdown": 1}, reason=reason, detail=detail)

    def exit(self, code, job=None):
        line = {"kind": "exit", "time": self.now, "exit_code": code, "job": job or {}}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def wait(self, seconds):
        self.now += seconds
        return self.now


@pytest.fixture
def simulated(tmp_path):
    run = Run(tmp_path)
    run.began = run.now
    return run


def account(run, checkpoint=None, is_running=False, interval=10):
    """Return the goodput, after a look at the sum of its parts."""
    found = accounting.read(run.path.parent, interval, checkpoint, is_running)
    assert found.seconds == pytest.approx(found.ended - found.began, abs=1e-6)
    assert sum(found.startup.values()) == pytest.approx(found.parts["startup"])
    assert min(found.parts.values()) >= 0
    return found


def parts(found):
    return {part: seconds for part, seconds in found.parts.items() if round(seconds, 3)}


def causes(found):
    return [start.cause for start in found.starts]


def test_a_run_without_failures(simulated):
    simulated.start(0)
    simulated.write("validation", {"validation": 4})
    simulated.steps(10)
    simulated.save()
    simulated.end("finished")
    found = account(simulated, checkpoint=10)
    assert parts(found) == pytest.approx(
        {"training": 7.5, "startup": 30, "data_wait": 2.5, "checkpoint": 2, "validation": 4}
        | {"idle": 1}
    )
    assert found.fraction == pytest.approx(7.5 / 47)
    assert found.fraction_of_allocated == pytest.approx(7.5 / 46)
    assert (causes(found), found.lost_steps) == (["finished"], 0)
    assert goodput.summary(found) == (
        "16.0% (start-up 63.8%, validation 8.5%, data wait 5.3%, checkpoint stall 4.3%)"
    )
    assert json.loads(json.dumps(found.to_dict()))["parts"]["training"] == 7.5


def test_steps_after_the_last_checkpoint_of_a_killed_start_are_lost(simulated):
    simulated.start(0)
    simulated.steps(10)
    simulated.save()
    simulated.steps(17)
    seen = simulated.now + 5  # its last heartbeat
    simulated.wait(60)
    simulated.start(10, previous=NODE | {"last_seen": seen})
    simulated.steps(20)
    simulated.end("finished")
    found = account(simulated)
    assert parts(found) == pytest.approx(
        {"training": 15, "startup": 60, "data_wait": 5, "checkpoint": 2}
        | {"lost": 7 + 5, "idle": 55 + 1}
    )
    assert causes(found) == ["crash", "finished"]
    assert [start.lost_steps for start in found.starts] == [7, 0]
    assert found.starts[0].detail == "killed, without a message"


def test_a_dead_run_that_was_not_started_again(simulated):
    simulated.start(0)
    simulated.steps(17)
    assert account(simulated, checkpoint=10).lost_steps == 7
    assert account(simulated, checkpoint=None).lost_steps == 17
    running = account(simulated, checkpoint=10, is_running=True)
    assert (running.lost_steps, causes(running)) == (0, ["running"])
    assert parts(running) == pytest.approx({"training": 12.75, "startup": 30, "data_wait": 4.25})


def test_a_run_killed_between_its_manifest_and_its_last_line(simulated, tmp_path):
    simulated.start(0)
    simulated.steps(17)
    (tmp_path / "manifest.json").write_text("{}")
    found = account(simulated, checkpoint=17)
    assert (causes(found), found.lost_steps) == (["finished"], 0)


def test_a_damaged_checkpoint_loses_the_work_of_earlier_starts_too(simulated):
    simulated.start(0)
    simulated.steps(20)
    simulated.end("stopped", "SIGTERM")
    simulated.start(20)
    simulated.steps(25)
    simulated.start(10)  # 20 was damaged
    simulated.steps(30)
    simulated.end("finished")
    found = account(simulated)
    assert [start.lost_steps for start in found.starts] == [10, 5, 0]
    assert found.parts["training"] == pytest.approx(0.75 * 30)


def test_a_rollback_loses_the_steps_after_its_checkpoint(simulated):
    simulated.start(0)
    simulated.steps(8)
    simulated.save()
    simulated.steps(11)
    simulated.step = 8
    simulated.write("rollback", {"train": 1, "checkpoint": 3})
    simulated.steps(12)
    simulated.end("finished")
    found = account(simulated)
    assert (found.lost_steps, found.starts[0].rollbacks) == (3, 1)
    assert found.parts["lost"] == pytest.approx(3 + 4)
    assert found.parts["training"] == pytest.approx(0.75 * 12)
    assert (causes(found), found.save_interval.failures) == (["finished"], 1)


def job(number, restarts, submitted, started, **times):
    return {"id": number, "restarts": restarts, "submitted": submitted, "started": started, **times}


def test_queue_and_time_limit_of_a_batch_job(simulated):
    submitted = simulated.now - 1000
    eligible = simulated.now - 400  # a dependency
    first = job(7, 0, submitted, simulated.now - 50, eligible=eligible)
    simulated.start(0, job=first)
    simulated.steps(10)
    simulated.write("stop", reason="SIGUSR2")
    simulated.save()
    simulated.end("stopped", "SIGUSR2")
    simulated.wait(3)
    simulated.exit(75)
    requeued = simulated.wait(2)
    started = simulated.wait(125)
    simulated.wait(20)
    simulated.start(10, job=job(7, 1, requeued, started, eligible=requeued + 120))
    simulated.steps(20)
    found = account(simulated, checkpoint=10, is_running=True)
    assert parts(found) == pytest.approx(
        {"training": 15, "startup": 60 + 50 + 20, "data_wait": 5, "checkpoint": 2}
        | {"queue": 350 + 125, "idle": 1 + 5}
    )
    assert found.startup["launch"] == pytest.approx(70)
    assert causes(found) == ["time limit", "running"]


def test_a_script_that_starts_the_run_again_in_the_same_job(simulated):
    own = job(7, 0, simulated.now - 100, simulated.now - 10)
    simulated.start(0, job=own)
    simulated.steps(3)
    simulated.end("failed", "DataError: x")
    simulated.exit(1)
    simulated.wait(6)
    simulated.start(0, job=own)
    found = account(simulated, is_running=True)
    assert found.parts["queue"] == pytest.approx(90)
    assert found.startup["launch"] == pytest.approx(10 + 6)
    assert (found.starts[0].cause, found.starts[0].detail) == ("crash", "DataError: x")
    simulated.exit(1)
    assert account(simulated).starts[1].detail == "exit code 1"


LIMIT = {"phase_seconds": 605.0}


@pytest.mark.parametrize(
    ("lines", "previous", "restarts", "cause"),
    [
        ([], NODE, 0, "crash"),
        (["exit"], NODE, 1, "crash"),
        (["failed"], NODE, 0, "crash"),
        ([], NODE | LIMIT, 0, "watchdog time-out"),
        (["failed", "exit"], NODE | LIMIT, 1, "watchdog time-out"),
        (["failed"], NODE | LIMIT | {"silent_hosts": ["n2"]}, 0, "node failure"),
        ([], NODE, 1, "node failure"),  # the batch script has ended, too
        (["failed"], NODE, 1, "node failure"),
        (["stop"], NODE, 1, "requeue"),
        (["stop"], NODE, 0, "preemption signal (killed)"),
    ],
)
def test_causes_of_lost_work(simulated, lines, previous, restarts, cause):
    simulated.start(0, job=job(7, 0, simulated.now, simulated.now))
    simulated.steps(10)
    simulated.save()
    simulated.steps(14)
    if "stop" in lines:
        simulated.write("stop", reason="SIGTERM")
    if "failed" in lines:
        simulated.write("end", {"train": 30}, reason="failed", detail="DataError: lost")
    seen = simulated.now
    simulated.wait(40)
    if "exit" in lines:
        simulated.exit(1)
    requeued = simulated.wait(2)
    started = simulated.wait(120)
    simulated.start(
        10, job=job(7, restarts, requeued, started), previous=previous | {"last_seen": seen}
    )
    simulated.steps(20)
    simulated.end("finished")
    found = account(simulated)
    assert (causes(found), found.lost_steps) == ([cause, "finished"], 4)
    # Slurm or its script noticed the end later than the last heartbeat
    noticed = 40 * ("exit" in lines) or 42 * (restarts > 0)
    assert found.parts["lost"] == pytest.approx(4 + 30 * ("failed" in lines) + noticed)
    assert found.parts["queue"] == pytest.approx(120)
    assert found.save_interval.failures == 1


def test_the_exit_of_a_start_that_was_refused_is_not_that_of_the_one_before(simulated):
    simulated.start(0, job=job(7, 0, simulated.now, simulated.now))
    simulated.steps(10)
    simulated.wait(300)
    simulated.exit(2, job={"id": 7, "restarts": 1})
    simulated.start(0, job=job(7, 2, simulated.now - 200, simulated.now - 50))
    simulated.steps(5)
    found = account(simulated, is_running=True)
    assert found.starts[0].cause == "node failure"
    assert found.parts["lost"] == pytest.approx(10 + 100)  # until Slurm noticed
    simulated.exit(137)
    simulated.wait(50)
    simulated.exit(2)
    found = account(simulated)
    assert (
        found.starts[1].detail == "exit code 137 (SIGKILL)" and found.starts[1].parts["lost"] == 5
    )


def test_the_controllers_clock_is_ahead(simulated):
    simulated.start(0, job=job(7, 0, simulated.now - 100, simulated.now + 20))
    found = account(simulated, is_running=True)
    assert parts(found) == pytest.approx({"queue": 100, "startup": 30})


def test_a_start_in_progress_shows_what_the_one_before_lost(simulated):
    simulated.start(0)
    simulated.steps(10)
    simulated.save()
    simulated.steps(14)
    fields = {"began": simulated.now, "galen": "0", "host": "n1", "ranks": 2, "job": {}}
    simulated.write("start", {"imports": 10}, previous={}, **fields)
    assert account(simulated, checkpoint=10, is_running=True).lost_steps == 4


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("SIGTERM", "preemption signal"),
        ("SIGUSR2", "preemption signal"),  # outside a batch job
        ("time limit", "time limit"),
        ("trigger file", "stopped"),
    ],
)
def test_causes_without_lost_work(simulated, reason, cause):
    simulated.start(0)
    simulated.steps(10)
    simulated.save()
    simulated.end("stopped", reason)
    found = account(simulated, checkpoint=10)
    assert (causes(found), found.lost_steps, found.parts["lost"]) == ([cause], 0, 0)


def test_a_start_killed_before_its_first_step(simulated):
    simulated.start(0)
    simulated.steps(10)
    simulated.save()
    simulated.end("stopped", "SIGTERM")
    fields = {"began": simulated.now, "galen": "0", "host": "n1", "ranks": 2, "job": {}}
    simulated.write("start", {"imports": 10}, previous={}, **fields)
    seen = simulated.wait(50)
    simulated.wait(10)
    simulated.start(10, previous=NODE | {"last_seen": seen})
    found = account(simulated, is_running=True)
    assert causes(found) == ["preemption signal", "crash", "running"]
    assert found.lost_steps == 0 and "lost" not in parts(found)
    assert found.startup["interrupted"] == pytest.approx(50)


def test_a_finished_run_that_is_extended_under_another_layout(simulated):
    simulated.start(0)
    simulated.steps(10)
    simulated.end("finished")
    simulated.wait(1000)
    simulated.start(10, layout="TP2 PP1 CP1 DP1")
    simulated.steps(20)
    simulated.end("finished")
    found = account(simulated)
    assert causes(found) == ["finished", "finished"] and found.lost_steps == 0
    assert found.parts["idle"] == pytest.approx(1002)
    assert [start.layout for start in found.starts] == ["TP1 PP1 CP1 DP2", "TP2 PP1 CP1 DP1"]
    assert found.fraction_of_allocated == pytest.approx(15 / 80)


@pytest.mark.parametrize("skew", [-40.0, 40.0])
def test_clocks_of_two_nodes_that_differ(simulated, skew):
    simulated.start(0)
    simulated.steps(10)
    simulated.end("stopped", "SIGTERM")
    simulated.wait(20)
    simulated.now += skew
    simulated.start(10)
    simulated.steps(20)
    simulated.end("finished")
    found = account(simulated)
    assert found.parts["training"] == pytest.approx(15)
    assert found.parts["idle"] == pytest.approx(2 + max(0, 20 + skew))


def test_a_clock_that_was_set_forward(simulated):
    simulated.start(0)
    simulated.steps(10)
    simulated.now += 100
    simulated.steps(20)
    simulated.end("finished")
    assert account(simulated).parts["unknown"] == pytest.approx(100)


def test_a_version_that_recorded_nothing(simulated, tmp_path):
    assert accounting.read(tmp_path, 10, 5, is_running=False) is None
    assert goodput.summary(None).startswith("unknown")
    (tmp_path / FILE).write_text("")
    assert accounting.read(tmp_path, 10, 5, is_running=False) is None
    simulated.start(500)
    simulated.steps(510)
    simulated.end("finished")
    found = account(simulated)
    assert found.first_step == 500 and found.parts["training"] == pytest.approx(7.5)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        "\xff",
        "[" * 100_000,
        '{"kind": "step"}',
        '{"kind": "step", "time": 1, "step": -1, "seconds": {}}',
        '{"kind": "step", "time": NaN, "step": 1, "seconds": {}}',
        '{"kind": "step", "time": 1, "step": 1, "seconds": {"train": 1e999}}',
        '{"kind": "step", "time": 1, "step": 1, "seconds": {"train": -5}}',
        '{"kind": "step", "time": 1, "step": 1, "seconds": [1]}',
        '{"kind": "start", "time": 1, "step": 1, "seconds": {}}',
        '{"kind": "ready", "time": 1, "step": 1, "seconds": {}}',
        '{"kind": "exit", "time": 1, "exit_code": "x"}',
        '{"kind": 1e400, "time": "x"}',
    ],
)
def test_a_damaged_line_is_skipped(simulated, line):
    with simulated.path.open("w", encoding="latin-1") as file:
        file.write(line + "\n")
    simulated.start(0)
    simulated.steps(5)
    with simulated.path.open("a", encoding="latin-1") as file:
        file.write(line + "\n")
    simulated.steps(10)
    with simulated.path.open("a") as file:
        file.write('{"kind": "st')  # a kill cut it
    found = account(simulated, is_running=True)
    assert (found.damaged_lines, len(found.starts)) == (2, 1)
    assert found.parts["training"] == pytest.approx(7.5)


def test_a_step_that_a_damaged_line_hides_is_unknown_time(simulated):
    simulated.start(0)
    simulated.steps(5)
    lines = simulated.path.read_text().splitlines()
    lines[4] = lines[4][:30]
    simulated.path.write_text("\n".join(lines) + "\n")
    found = account(simulated, is_running=True)
    assert found.parts["unknown"] == pytest.approx(1)
