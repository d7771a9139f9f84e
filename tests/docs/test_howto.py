"""The code of the how-to pages runs: the blocks of a page in order, in an empty folder.

A block with a title is a file of that name; Python files are also run, with the other Python blocks
of the page, as one program.
"""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_how_to_page_runs(page, tmp_path):
    program = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nROOT = {str(ROOT)!r}\n"
    for language, title, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if title:
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / title).write_text(code, encoding="utf-8")
        if language == "python":
            program += code
    assert "assert" in program
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_how_to_page_is_tested():
    assert len(PAGES) == 8
