import pytest

from galen import recipe
from galen.errors import OutputConflictError
from megatron_ext.config.recipe import Recipe
from megatron_ext.training import preflight
from tests.conftest import ROOT


def test_another_padding_is_another_run(tmp_path):
    tiny = ROOT / "examples/pretrain/tiny.yaml"
    options = [f"output={tmp_path}", "data.reset_attention_mask=true"]

    def check(*layout):
        preflight._check_same_run(tmp_path, recipe.load(Recipe, tiny, [*options, *layout]))

    started = recipe.load(Recipe, tiny, [*options, "parallel.context_parallel_size=2"])
    (tmp_path / "recipe.yaml").write_text(recipe.dump(started))
    check("parallel.context_parallel_size=2")
    check("data.pad_documents_to_multiple_of=4")  # another layout, the same sequences
    with pytest.raises(OutputConflictError, match=r"4 → 1 .*; set data\.pad_doc.* to 4 "):
        check()
    with pytest.raises(OutputConflictError, match=r"4 → 8 .*_size = 4 needs: set that to 2 or a"):
        check("parallel.context_parallel_size=4")


def test_a_file_is_no_run_folder(tmp_path):
    output = tmp_path / "run"
    output.touch()
    run = recipe.load(Recipe, ROOT / "examples/pretrain/tiny.yaml", [f"output={output}"])
    with pytest.raises(OutputConflictError, match="run exists already"):
        preflight.check(run, 1, 1, launching=True)
