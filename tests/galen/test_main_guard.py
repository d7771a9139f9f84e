import subprocess
import sys

from tests.conftest import ROOT

WORK = """
import sys
sys.path.insert(0, {root!r})
from data_prep.executors.local import LocalExecutor
from data_prep.curation.stage_reader import StageReader
from galen.errors import UsageError
{guard}
try:
    LocalExecutor([StageReader({folder!r})], 1, 1, {folder!r} + "/log/read").run()
    print("done")
except UsageError as error:
    print(error)
"""


def output_of(tmp_path, guard):
    script = tmp_path / "mine.py"
    text = WORK.format(root=str(ROOT), folder=str(tmp_path), guard=guard)
    if guard:
        before, _, work = text.partition("try:")
        text = before + "\n".join(f"    {line}" for line in f"try:{work}".splitlines())
    script.write_text(text)
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60
    )
    return result.stdout + result.stderr


def test_a_script_without_the_guard_is_reported_so(tmp_path):
    """Its worker processes would import it, and start all of it again."""
    said = output_of(tmp_path, "")
    assert said.startswith(
        f'{tmp_path / "mine.py"} starts its work without `if __name__ == "__main__":`'
    )
    assert said.count("\n") == 1
    assert output_of(tmp_path, 'if __name__ == "__main__":') == "done\n"


def test_a_script_from_standard_input_is_refused():
    script = "from galen import main_guard; main_guard.check_main_guard()"
    done = subprocess.run(
        [sys.executable, "-"], input=script, cwd=ROOT, capture_output=True, text=True
    )
    assert "UsageError: worker processes cannot import a script that is read" in done.stderr
