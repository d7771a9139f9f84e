import json

import pytest

from galen.errors import DataError
from megatron_ext import restart


@pytest.fixture
def reach(tmp_path):
    """Pretend that the run has a checkpoint of a step."""

    def reach(step):
        (tmp_path / "checkpoints" / f"iter_{step:07d}").mkdir(parents=True)
        (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(f"{step}\n")

    return reach


def test_restarts_as_long_as_there_is_progress(tmp_path, reach):
    for step in range(10, 100, 10):
        reach(step)
        assert restart.decide(tmp_path, 75 if step % 20 else 1, 3).restart


def test_gives_up_without_progress(tmp_path, reach):
    assert [restart.decide(tmp_path, 1, 3).restart for _ in range(3)] == [True, True, False]
    reach(5)
    assert restart.decide(tmp_path, 1, 3).restart  # progress after all
    assert [restart.decide(tmp_path, 140, 3).restart for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("code", [0, 2])
def test_finished_or_refused(tmp_path, code):
    assert not restart.decide(tmp_path, code, 3).restart
    assert not list(tmp_path.iterdir())


def test_asked_to_stop_by_a_person(tmp_path, reach):
    reach(5)
    (tmp_path / "stopped.json").write_text(
        json.dumps({"reason": "trigger file", "iteration": 5, "exit_code": 75})
    )
    assert not restart.decide(tmp_path, 75, 3).restart
    (tmp_path / "stopped.json").write_text(
        json.dumps({"reason": "SIGUSR2", "iteration": 5, "exit_code": 75})
    )
    assert restart.decide(tmp_path, 75, 3).restart


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"iteration": 5, "restarts_without_progress": "x"}', b"\xff"],
)
def test_a_damaged_record_is_reported(tmp_path, reach, content):
    reach(5)
    (tmp_path / "restarts.json").write_bytes(content)
    with pytest.raises(DataError, match=r"restarts\.json"):
        restart.decide(tmp_path, 1, 3)
    (tmp_path / "stopped.json").write_bytes(content)
    if content not in (b"{}", b'{"iteration": 5, "restarts_without_progress": "x"}'):
        with pytest.raises(DataError, match=r"stopped\.json"):
            restart.decide(tmp_path, 75, 3)
