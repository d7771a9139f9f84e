import pytest

from galen import progress
from galen.progress import Progress


@pytest.fixture(autouse=True)
def a_line_at_each_update(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)


def test_plain_lines_have_rate_and_time_left(capsys, monkeypatch):
    with Progress("tokenise", total=4, unit="documents") as shown:
        shown.update(2)
        monkeypatch.setattr(progress, "LINE_SECONDS", 100)
        shown.update(1)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("tokenise: 2 of 4 (50%) documents")
    assert "left" in first
    assert last.startswith("tokenise: 3 of 4")


def test_the_last_line_comes_once_and_an_estimate_grows(capsys):
    with Progress("tokenise", total=4.5, unit="documents") as shown:
        shown.update(9)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tokenise: 9 of 9 (100%) documents")
