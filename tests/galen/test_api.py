import inspect
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from galen import api
from galen.commands import VERBS
from galen.errors import DataError, UsageError
from tests.conftest import ROOT
from tests.data_prep.material import many_records, write_medline
from tests.evaluation.conftest import data  # noqa: F401 (a fixture)

PAGE = ROOT / "docs" / "python_api.md"


@pytest.mark.slow
def test_the_examples_of_the_page(tmp_path, data, untied_llama):  # noqa: F811
    shutil.copytree(untied_llama, tmp_path / "models" / "base")
    shutil.move(data / "questions", tmp_path / "questions")
    write_medline(tmp_path / "raw" / "a.xml.gz", many_records(1, 120))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    code = textwrap.indent("\n".join(blocks), "    ")
    script = tmp_path / "script.py"
    script.write_text(f'if __name__ == "__main__":\n{code}')
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "runs" / "pretrain" / "manifest.json").is_file()


def test_every_command_has_a_function_and_a_line_of_the_page():
    rows = re.findall(r"^\| `(\w+)` \| `galen ([\w-]+)`", PAGE.read_text("utf-8"), re.MULTILINE)
    functions = [
        name
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__ == api.__name__ and name[0] != "_"
    ]
    assert [function for function, _ in rows] == functions
    assert {verb for _, verb in rows} == VERBS.keys() - {"examples", "check-node", "should-restart"}


def test_mistakes_are_typed_errors():
    with pytest.raises(UsageError, match=r"cannot read the recipe nowhere\.yaml"):
        api.curate("nowhere.yaml")
    with pytest.raises(UsageError, match="unrecognized arguments: --no-such-option"):
        api.preprocess("a.jsonl", "out", "tokenizer", no_such_option=1)
    with pytest.raises(DataError, match="nowhere"):
        api.import_hf("nowhere", "out")


def test_options_become_those_of_the_command_line():
    options = {"json_keys": ["text", "title"], "append_eod": True, "workers": 2, "other": None}
    expected = ["--json-keys", "text", "title", "--append-eod", "--workers", "2"]
    assert api._flags(options) == expected
    assert api._assignments({"a.b": [1, "x"], "c": None}) == ['a.b=[1, "x"]', "c=null"]
