import errno

import pytest
from pydantic.dataclasses import dataclass

from galen import cli
from galen.errors import DataError, UsageError
from galen.recipe import STRICT


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("wrong key"), 2), (DataError("bad file"), 1)]
)
def test_users_errors_are_one_line(capsys, error, code):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_bugs_keep_their_traceback():
    for error in (KeyError("a bug"), ConnectionError("a bug")):

        def main(error=error):
            raise error

        with pytest.raises(type(error)):
            cli.run(main)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/out"),
            "error: /data/out: Permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error: cannot write: [Errno 28] No space left on device",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/out"),
            "error: /data/out: No space left on device",
        ),
        # a copy to the second
        (
            OSError(errno.EROFS, "Read-only", "model/config.json", None, "/data/out"),
            "error: /data/out: Read-only",
        ),
        (
            ValueError("while serializing: No space left on device (os error 28)"),
            "error: cannot write: while serializing: No space left on device (os error 28)",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, error, message):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert (stop.value.code, capsys.readouterr().err) == (1, f"{message}\n")


def test_success_exits_with_zero():
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: None)
    assert stop.value.code == 0


def test_only_the_recipe_is_asked_for():
    @dataclass(config=STRICT)
    class Empty:
        pass

    with pytest.raises(UsageError, match=r"required: RECIPE\.yaml; .* --help` lists the options"):
        cli.recipe_parser("", Empty).parse_args([])


def test_of_many_processes_one_tells_a_mistake(capsys, monkeypatch):
    def main():
        raise UsageError("wrong key")

    for rank, expected in (("0", "error: wrong key\n"), ("3", "")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit):
            cli.run(main)
        assert capsys.readouterr().err == expected


def test_control_characters_of_a_message_are_escaped(capsys):
    def main():
        raise DataError("a\x1b[2Jb\rc\x0bd\u202ee\ud800 é — …\nnext")

    with pytest.raises(SystemExit):
        cli.run(main)
    assert capsys.readouterr().err == "error: a\\x1b[2Jb\\rc\\x0bd\\u202ee\\ud800 é — …\nnext\n"


def test_a_closed_output_is_no_bug(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: 0)
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--ouptut", "; did you mean '--output'?; `"),
        ("--out=m2", "; did you mean '--output'?; `"),
        ("--zzz", "; `"),
    ],
)
def test_an_unknown_option_is_reported_before_a_missing_one(option, hint):
    parser = cli.ArgumentParser("A command.")
    parser.add_argument("--output", required=True)
    parser.add_argument("--text")
    with pytest.raises(UsageError) as error:
        parser.parse_args([option])
    name = option.partition("=")[0]
    assert str(error.value).startswith(f"unknown option {name!r}{hint}")
    # a value may look like an option
    assert parser.parse_args(["--output=--a", "--text", "--b c"]).text == "--b c"
