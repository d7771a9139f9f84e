import pytest

from data_prep.curation.recipe import CorpusRecipe
from galen.errors import UsageError
from galen.recipe import dump, load, to_dict
from galen.recipe_help import describe

HEAD = "output: out\nsources: [{reader: medline, path: raw}]\n"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(HEAD + text)
        return path

    return write


def test_steps_in_order_with_settings_and_bare_names(write):
    recipe = load(
        CorpusRecipe,
        write("steps: [retraction, {step: length, min_words: 7}]\n"),
        ["steps.1.max_words=9"],
    )
    assert [step.step for step in recipe.steps] == ["retraction", "length"]
    assert (recipe.steps[1].min_words, recipe.steps[1].max_words) == (7, 9)
    assert (
        load(
            CorpusRecipe,
            write(dump(recipe).partition("steps:")[1] + dump(recipe).partition("steps:")[2]),
        )
        == recipe
    )


def test_a_date_with_and_without_quotes(write):
    for text in ("2023-07-15", '"2023-07-15"'):
        recipe = load(
            CorpusRecipe,
            write(f"steps: [{{step: mixture, upsample: {{reference_date: {text}}}}}]\n"),
        )
        assert to_dict(recipe)["steps"][0]["upsample"]["reference_date"] == "2023-07-15"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "steps: [minhash_dedups]\n",
            ["line 3", "unknown step 'minhash_dedups'", "did you mean 'minhash_dedup'?"],
        ),
        (
            "steps:\n- {step: length, min_word: 3}\n",
            ["line 4", "unknown key 'steps.0.min_word'", "did you mean 'min_words'?"],
        ),
        (  # a key of another step
            "steps:\n- {step: language_id, min_words: 3}\n",
            ["line 4", "unknown key 'steps.0.min_words'", "known: step, sources, languages"],
        ),
        ("steps:\n- {step: length, min_words: many}\n", ["steps.0.min_words", "valid integer"]),
        (
            "steps:\n- {step: copyright, rule: none}\n",
            ["steps.0.rule", "'any_claim', 'explicit' or 'ignore'"],
        ),
        ("steps:\n- {min_words: 3}\n", ["steps.0", "the key 'step' is missing"]),
        ("steps:\n- decontaminate\n", ["'steps.0.eval_datasets' is missing"]),
        (
            "steps:\n- {step: mixture, weights: {pubmed: 2}}\n",
            ["the step mixture names pubmed", "the sources are medline"],
        ),
        (
            "steps:\n- {step: mixture, weights: {medline: -2}}\n",
            ["line 4", "steps.0.weights.medline", "greater than or equal to 0"],
        ),
        (
            "steps: [medical, language_id]\n",
            ["the step medical needs the step language_id before it"],
        ),
        (
            "steps:\n- {step: mixture, upsample: {facto: 2}}\n",
            ["steps.0.upsample.facto", "did you mean 'factor'?"],
        ),
    ],
)
def test_mistakes_name_line_key_and_the_nearest_right_name(write, text, parts):
    with pytest.raises(UsageError) as error:
        load(CorpusRecipe, write(text))
    for part in parts:
        assert part in str(error.value)


def test_help_lists_the_steps():
    text = describe(CorpusRecipe)
    assert "    minhash_dedup:  Drop near-duplicates by MinHash" in text
    assert "      num_buckets [14]  Buckets (bands) of the signature." in text
    assert "      sources [null]  Names of the sources whose documents go through this step" in text
    assert "      step [" not in text
