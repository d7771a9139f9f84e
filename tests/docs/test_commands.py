"""The commands that the pages and the examples show have the options and files they name."""

import re
import shlex

import pytest

from galen.commands import VERBS
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
]


def commands_of(text):
    """Yield the `galen VERB …` commands of a page or of a recipe's comments, as words."""
    text = re.sub(r"^#+ ?", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"^\s*galen (?=[a-z])(.*)$", text, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)
    for line in re.findall(r"`galen ([a-z][^`]*)`", text):
        yield shlex.split(line.replace("'", ""))


@pytest.fixture(scope="module")
def parsers(hook):
    return {verb: hook.parser_of(command.module) for verb, command in VERBS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_and_example_files_exist(page, parsers):
    for verb, *words in commands_of(page.read_text(encoding="utf-8")):
        assert verb in VERBS, f"galen {verb}"
        known = parsers[verb]._option_string_actions
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert [option for option in options if option not in known] == [], f"galen {verb}"
        parts = [part for word in words for part in word.split(",")]
        files = [part for part in parts if re.match(r"examples/[a-z0-9_/]+\.yaml$", part)]
        assert [file for file in files if not (ROOT / file).is_file()] == [], f"galen {verb}"
