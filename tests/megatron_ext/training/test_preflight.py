import pytest

from galen import recipe
from galen.errors import OutputConflictError
from megatron_ext.config.recipe import Recipe
from megatron_ext.training import preflight
from tests.conftest import ROOT


def test_a_file_is_no_run_folder(tmp_path):
    output = tmp_path / "run"
    output.touch()
    run = recipe.load(Recipe, ROOT / "examples/pretrain/tiny.yaml", [f"output={output}"])
    with pytest.raises(OutputConflictError, match="run exists already"):
        preflight.check(run, 1, 1, launching=True)
