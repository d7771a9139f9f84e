import pytest

from data_prep.curation.recipe import CorpusRecipe
from data_prep.curation.registry import build_step
from galen.recipe import load
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples/corpora").glob("*.yaml")), ids=lambda path: path.stem
)
def test_recipes_are_valid_and_their_steps_can_be_made(path):
    recipe = load(CorpusRecipe, path)
    assert [build_step(step).name for step in recipe.steps] == [step.step for step in recipe.steps]
