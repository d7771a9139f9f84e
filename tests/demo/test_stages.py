"""The runner of stages, on real commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from galen.errors import DataError, UsageError

FOLDER = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture
def stages(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # as when demo.py is started by its path
    import stages

    return stages


def copy_stage(stages, name, source, target):
    """A stage that copies a file and notes in the file `calls` that it ran."""
    command = ("sh", "-c", f"echo {name} >> calls; cp {source} {target}")
    return stages.Stage(
        name=name, title=name, command=command, inputs=(Path(source),), outputs=(Path(target),)
    )


@pytest.fixture
def chain(stages, tmp_path):
    (tmp_path / "a").write_text("1")
    return [copy_stage(stages, "first", "a", "b"), copy_stage(stages, "second", "b", "c")]


def calls(folder):
    return (folder / "calls").read_text().split()


def test_second_run_repeats_nothing(stages, chain, tmp_path, capfd):
    stages.run(chain, tmp_path, tmp_path / "work")
    stages.run(chain, tmp_path, tmp_path / "work")
    assert calls(tmp_path) == ["first", "second"]
    output = capfd.readouterr().out
    assert "[2/2] second" in output
    assert output.count("$ sh -c 'echo first >> calls; cp a b'") == 1
    assert output.count("already finished") == 2


def test_changed_input_runs_again_with_all_that_follows(stages, chain, tmp_path):
    stages.run(chain, tmp_path, tmp_path / "work")
    (tmp_path / "a").write_text("22")
    stages.run(chain, tmp_path, tmp_path / "work")
    assert calls(tmp_path) == ["first", "second", "first", "second"]
    assert (tmp_path / "c").read_text() == "22"


def test_lost_output_is_made_again(stages, chain, tmp_path):
    stages.run(chain, tmp_path, tmp_path / "work")
    (tmp_path / "c").unlink()
    stages.run(chain, tmp_path, tmp_path / "work")
    assert calls(tmp_path) == ["first", "second", "second"]


def test_a_failed_stage_stops_and_resumes_there(stages, chain, tmp_path):
    broken = stages.Stage(
        name="second", title="second", command=("sh", "-c", "exit 3"), outputs=(Path("c"),)
    )
    with pytest.raises(
        stages.StageError, match=r"stage 'second' failed with exit code 3.*make demo-clean"
    ) as caught:
        stages.run([chain[0], broken], tmp_path, tmp_path / "work")
    assert caught.value.exit_code == 3
    stages.run(chain, tmp_path, tmp_path / "work")
    assert calls(tmp_path) == ["first", "second"]


def test_a_stage_must_write_its_outputs(stages, tmp_path):
    empty = stages.Stage(name="empty", title="empty", command=("true",), outputs=(Path("nothing"),))
    with pytest.raises(stages.StageError, match="but nothing is missing"):
        stages.run([empty], tmp_path, tmp_path / "work")


def test_two_runs_at_once_are_refused(stages, tmp_path, capfd):
    inner = (
        f"import sys; sys.path[:0] = [{str(FOLDER)!r}]; import stages, pathlib; stages.run([],"
        " pathlib.Path('.'), pathlib.Path('work'))"
    )
    nested = stages.Stage(
        name="nested", title="nested", command=(sys.executable, "-c", inner), outputs=()
    )
    with pytest.raises(stages.StageError):
        stages.run([nested], tmp_path, tmp_path / "work")
    assert "another run is in progress in work" in capfd.readouterr().err


def test_termination_ends_the_command(stages, tmp_path):
    code = (
        f"import sys; sys.path[:0] = [{str(FOLDER)!r}]; import stages, pathlib; p ="
        " pathlib.Path('.')\nstages.run([stages.Stage(name='s', title='s', command=('sh', '-c',"
        " 'echo $$ > pid; exec sleep 60'), outputs=())], p, p / 'work')"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=30)
    assert "failed with exit code 143" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_damaged_history_is_one_message(stages, chain, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / stages.HISTORY).write_text("{")
    with pytest.raises(DataError, match=r"is not JSON: .*; remove it"):
        stages.run(chain, tmp_path, tmp_path / "work")


def test_variables_are_substituted_in_split_words(stages, tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text(
        "stages:\n- {name: a, title: A, command: 'cp {model}/x y', when: {small: '-v', big: -w},"
        " outputs: ['{model}/z']}\n"
    )
    [stage] = stages.load(path, {"model": Path("my model")}, ["small"])
    assert stage.command == ("cp", "my model/x", "y", "-v")
    assert stage.line() == "cp 'my model/x' y -v"
    assert stage.outputs == (Path("my model/z"),)
    path.write_text("stages:\n- {name: a, titel: A, command: x, outputs: []}\n")
    with pytest.raises(
        UsageError, match=r"line 2: unknown key 'stages.0.titel'; did you mean 'title'"
    ):
        stages.load(path, {})


def test_history_records_command_and_time(stages, chain, tmp_path):
    stages.run(chain, tmp_path, tmp_path / "work")
    history = json.loads((tmp_path / "work" / stages.HISTORY).read_text())
    assert list(history) == ["first", "second"]
    assert history["first"]["command"] == "sh -c 'echo first >> calls; cp a b'"
    assert history["first"]["seconds"] >= 0
