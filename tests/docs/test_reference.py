"""The reference pages list what the code has."""

from data_prep.curation.registry import STEPS
from data_prep.readers import READERS
from evaluation.protocols.registry import PROTOCOLS
from galen.commands import STAGES
from tests.conftest import ROOT


def test_every_command_has_its_options(hook):
    text = hook.commands()
    for stage in STAGES:
        for verb in stage.verbs:
            assert f"### galen {verb}\n" in text
    assert "| `--workers N` | all cores: " in text
    assert "| `--tokenizer-model T` | required | HF folder" in text


def test_recipes_steps_readers_and_protocols(hook):
    assert "## galen pretrain\n" in hook.recipes()
    assert [f"## {name}" for name in STEPS] == lines_of(hook.steps(), "## ")
    assert [f"## {name}" for name in READERS] == lines_of(hook.readers(), "## ")[1:]
    assert "| `min_words` | `20` | Fewest words. |" in hook.steps()
    assert '| `answer_format` | `"label"` | Form of the answer: ' in hook.task_keys()
    assert all(f"| `{name}` |" in hook.protocols() for name in PROTOCOLS)


def test_tasks_have_the_files_they_read(hook):
    [row] = [line for line in hook.tasks().splitlines() if line.startswith("| `pubmedqa` |")]
    assert row.endswith(" | `pubmedqa/ori_pqal.json`, `pubmedqa/test_ground_truth.json` |")


def test_the_marker_of_each_page_is_replaced(hook):
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        assert "<!--" not in hook.on_page_markdown(page.read_text(encoding="utf-8"))


def test_cells_end_neither_the_row_nor_the_text(hook):
    assert hook._cell("a|b\n<x> `<y>`") == "a\\|b &lt;x> `<y>`"


def lines_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]
