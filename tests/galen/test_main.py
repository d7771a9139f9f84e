import ast
import importlib
import os
import resource
import subprocess
import sys

import pytest

from galen import commands, main
from galen.commands import STAGES, VERBS
from galen.errors import UsageError
from tests.conftest import ROOT


def galen(*arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "galen", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_every_command_of_a_room_has_one_verb():
    modules = {verb.module for verb in VERBS.values()} - {"galen.examples"}
    rooms = {module.partition(".")[0] for module in modules}
    commands = {f"{room}.{path.stem}" for room in rooms for path in (ROOT / room).glob("[a-z]*.py")}
    assert sorted(modules) == sorted(commands)


def test_every_verb_has_a_main_that_takes_arguments():
    for verb in VERBS.values():
        path = ROOT / f"{verb.module.replace('.', '/')}.py"
        functions = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        mains = [function for function in functions if function.name == "main"]
        assert [argument.arg for argument in mains[0].args.args] == ["argv"], verb


def test_help_lists_the_verbs_by_stage_from_any_folder(tmp_path):
    start = cpu_seconds()
    done = galen("--help", folder=tmp_path)
    assert cpu_seconds() - start < 0.5
    assert done.returncode == 0
    for stage in STAGES:
        assert f"\n{stage.title}:\n" in done.stdout
    for name, verb in VERBS.items():
        assert any(
            line.split() == [name, *verb.summary.split()] for line in done.stdout.split("\n")
        )


def test_help_of_a_verb_is_that_of_its_command(tmp_path):
    start = cpu_seconds()
    done = galen("curate", "--help", folder=tmp_path)
    assert cpu_seconds() - start < 1.5  # 0.4 s on a quiet machine
    assert done.stdout.startswith("usage: galen curate [-h]")
    assert "keys of the recipe:" in done.stdout


def test_help_of_a_verb_may_also_be_asked_for_first(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["galen"])
    with pytest.raises(SystemExit):
        main.run(["help", "examples"])
    assert capsys.readouterr().out.startswith("usage: galen examples [-h]")


def test_a_verb_works_like_its_script(tmp_path):
    done = galen("curate", "nowhere.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read the recipe nowhere.yaml")


def test_an_unknown_verb_is_refused(tmp_path):
    done = galen("preproces", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown verb 'preproces'; did you mean 'preprocess'?\n"


BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("orjson", "jinja2", "requests", "fsspec"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    ("verb", "script"),
    [
        ("report-corpus", ["data_prep/report.py"]),
        ("finetune", ["finetune/train.py"]),
        ("evaluate", ["-m", "evaluation.run"]),
    ],
)
def test_a_script_reports_a_missing_library_like_its_verb(tmp_path, verb, script):
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    arguments = ["corpus"] if verb == "report-corpus" else ["--help"]
    answers = set()
    for command in (["-m", "galen", verb], script):
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        answers.add((done.returncode, done.stderr))
    [(code, message)] = answers
    assert code == 2
    assert message.startswith(f"error: galen {verb} needs the library ")
    assert message.count("\n") == 1


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["galen"])
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.delitem(sys.modules, "galen.progress", raising=False)
    for name in [name for name in sys.modules if name.startswith(("finetune", "evaluation"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=r"galen finetune needs the library tqdm: .*\[finetune\]"):
        main.run(["finetune", "--help"])


def test_a_missing_module_of_an_installed_library_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError), commands.explain_missing_library("curate"):
        importlib.import_module("yaml.nothing")


def test_the_traceback_of_a_bug_in_a_script_is_its_own():
    script = "import sys; sys.argv = ['-m']; import data_prep; 1 / 0"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "commands.py" not in done.stderr


def cpu_seconds():
    """Return the processor time of ended child processes; other work on the machine adds little."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
