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
    assert first.startswith("tokenise: 2 of 4 documents (50%), ")
    assert "left" in first
    assert last.startswith("tokenise: 3 of 4")


def test_the_last_line_comes_once_and_an_estimate_grows(capsys):
    with Progress("tokenise", total=4.5, unit="documents") as shown:
        shown.update(9)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tokenise: 9 of 9 documents (100%), ")


@pytest.mark.parametrize(
    ("total", "begin"), [(4e7, "copy: 40.0M of 40.0MB (100%), "), (0, "copy: 40.0MB, ")]
)
def test_the_unit_stands_with_its_figure(total, begin, capsys):
    with Progress("copy", total=total, unit="B", scale=True) as shown:
        shown.update(4e7)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(begin) and "B/s" in line and " B" not in line
