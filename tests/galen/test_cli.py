import pytest

from galen import cli
from galen.errors import DataError, UsageError


@pytest.mark.parametrize(("error", "code"), [(UsageError("wrong key"), 2), (DataError("bad file"), 1)])
def test_users_errors_are_one_line(capsys, error, code):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_bugs_keep_their_traceback():
    def main():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        cli.run(main)


def test_success_exits_with_zero():
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: None)
    assert stop.value.code == 0


def test_of_many_processes_one_tells_a_mistake(capsys, monkeypatch):
    def main():
        raise UsageError("wrong key")

    for rank, expected in (("0", "error: wrong key\n"), ("3", "")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit):
            cli.run(main)
        assert capsys.readouterr().err == expected
