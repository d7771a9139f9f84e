import dataclasses

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from galen.errors import UsageError
from galen.recipe import STRICT, ResumeMayChange, dump, load, resume_may_change
from galen.recipe_help import describe


@dataclass(kw_only=True, config=STRICT)
class Source:
    path: str
    weight: float = 1.0


@dataclass(kw_only=True, config=STRICT)
class Training:
    train_iters: int = 10
    """Number of optimizer steps."""
    lr: float = 1e-4

    def __post_init__(self) -> None:
        if self.train_iters < 1:
            raise ValueError("must be at least 1")


@dataclass(kw_only=True, config=STRICT)
class Recipe:
    output: str
    """Where to write."""
    training: Training
    sources: list[Source] = ()  # type: ignore[assignment]
    extra: Training | None = None
    languages: list[str] | None = None
    files: str | list[str | Source] | None = None
    shares: dict[str, float] | None = None


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


GOOD = (
    "output: out\ntraining:\n  train_iters: 5\n  lr: 1e-3\nsources:\n  - path: a\n  - {path: b,"
    " weight: 2}\n"
)


def test_values_and_overrides(write):
    recipe = load(
        Recipe, write(GOOD), ["training.train_iters=7", "sources.1.path=c", "extra.lr=0.5"]
    )
    assert recipe.training.train_iters == 7
    # YAML reads 1e-3 as text; the type makes it a number
    assert recipe.training.lr == pytest.approx(1e-3)
    assert [(s.path, s.weight) for s in recipe.sources] == [("a", 1.0), ("c", 2.0)]
    assert recipe.extra.lr == 0.5


def test_dump_reads_back_equal(write):
    recipe = load(Recipe, write(GOOD))
    assert load(Recipe, write(dump(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (GOOD.replace("  lr:", "  learning:"), [], ["line 4", "unknown key 'training.learning'"]),
        (GOOD.replace("train_iters", "train_itres"), [], ["line 3", "did you mean 'train_iters'?"]),
        (
            GOOD,
            ["training.train_iter=3"],
            ["override 'training.train_iter=3'", "did you mean 'train_iters'?"],
        ),
        (GOOD, ["training.train_iters=0"], ["training: must be at least 1"]),
        (
            GOOD,
            ["training.train_iters=many"],
            ["training.train_iters: Input should be a valid integer"],
        ),
        (GOOD, ["extra.lrr=1"], ["unknown key 'extra.lrr'", "did you mean 'lr'?"]),
        (GOOD, ["sources.4.path=x"], ["sources is a list of 2"]),
        (GOOD, ["output.x=1"], ["output is a value"]),
        (GOOD, ["training"], ["write key=value"]),
        (GOOD.replace("  - path: a", "  - pat: a"), [], ["line 6", "unknown key 'sources.0.pat'"]),
        ("training: {}\n", [], ["key 'output' is missing"]),
        ("- 1\n", [], ["a recipe is a mapping"]),
        ("a: [1\nb: 2\n", [], ["line 2", "not valid YAML"]),
        (
            "output: x\ntraining: {lr: 1}\ntraining: {train_iters: 5}\n",
            [],
            ["line 3", "'training' is given twice, first in line 2"],
        ),
        (
            "output: x\ntraining: {lr: 1}\n",
            ["sources=a"],
            ["override 'sources=a'", "sources: should be a list: [a, b]"],
        ),
        (
            GOOD,
            ["train_iters=3"],
            [
                "unknown key 'train_iters'",
                "did you mean 'training.train_iters' or 'extra.train_iters'?",
            ],
        ),
        (GOOD, ["training.output=3"], ["unknown key 'training.output'", "did you mean 'output'?"]),
        (
            GOOD,
            ["trainig.lr=3"],
            ["override 'trainig.lr=3': unknown key 'trainig'; did you mean 'training'?"],
        ),
        (GOOD, ["trainiters=3"], ["unknown key 'trainiters'", "train_iters'?"]),
        (
            GOOD,
            ["languages=[en, true]"],
            [
                "override 'languages=[en, true]': languages.1: YAML reads True as a truth value; in"
                " quotes it is a valid string"
            ],
        ),
        (
            GOOD + "languages: [en, fr]\n",
            ["languages=[en, 5]"],
            ["override 'languages=[en, 5]': languages.1: YAML reads 5 as a number"],
        ),
        (
            GOOD,
            ["sources=[{path: a}, {pat: b}]"],
            ["override 'sources=[{path: a}, {pat: b}]': unknown key 'sources.1.pat'"],
        ),
        (
            GOOD,
            ["output=2024-01-01"],
            ["output: YAML reads 2024-01-01 as a date; in quotes it is a valid string"],
        ),
        (GOOD + "1: 2\n", [], ["line 8: unknown key '1'"]),
        (GOOD, [".".join("a" * 1000) + "=1"], ["more than 64 levels"]),
        (
            GOOD,
            ["output=x", "training.train_iters=0"],
            ["recipe.yaml, line 2 with override 'training.train_iters=0': training: must be at"],
        ),
        (GOOD, ["a=[["], ["override 'a=[[': not valid YAML"]),
        (
            GOOD,
            ["training.train_iters=[1, 2]"],
            ["training.train_iters: should be a single value, not a list"],
        ),
        (GOOD, ["output={a: 1}"], ["output: should be a single value, not a section"]),
    ],
)
def test_mistakes_are_named(write, text, overrides, expected):
    with pytest.raises(UsageError) as error:
        load(Recipe, write(text), overrides)
    for part in expected:
        assert part in str(error.value)


def test_one_value_is_a_list_of_one(write):
    recipe = load(Recipe, write(GOOD + "languages: no\n"), ["files=a.jsonl"])
    assert recipe.languages == ["no"]
    assert recipe.files == "a.jsonl"
    assert load(Recipe, write(GOOD), ["languages=en"]).languages == ["en"]


def test_norwegian_is_text(write):
    recipe = load(
        Recipe, write(GOOD + "languages: [en, no, on]\nshares: {no: 0.5}\n"), ["files=[no, yes]"]
    )
    assert (recipe.languages, recipe.shares, recipe.files) == (
        ["en", "no", "on"],
        {"no": 0.5},
        ["no", "yes"],
    )
    assert load(Recipe, write(dump(recipe))) == recipe


def test_a_mistake_in_a_layer_is_reported_of_the_layer(write, tmp_path):
    layer = tmp_path / "layer.yaml"
    layer.write_text("\n\nlanguages: [en, 5]\n")
    with pytest.raises(
        UsageError, match=r"layer\.yaml, line 3: languages\.1: YAML reads 5 as a number"
    ):
        load(Recipe, write(GOOD + "languages: [a, b]\n"), [str(layer)])


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot read the recipe"):
        load(Recipe, tmp_path / "none.yaml")


def test_describe_shows_documentation_and_defaults():
    text = describe(Recipe)
    assert "output [required]  Where to write." in text
    assert "    train_iters [10]  Number of optimizer steps." in text


def test_marked_keys_and_sections_may_change_in_a_resumed_run():
    @dataclass(kw_only=True, config=STRICT)
    class Section:
        interval: ResumeMayChange[int] = Field(default=1, ge=1)
        seed: int = 0

    @dataclass(kw_only=True, config=STRICT)
    class Marked:
        section: Section = dataclasses.field(default_factory=Section)
        layout: ResumeMayChange[Section | None] = None
        output: ResumeMayChange[str] = "out"

    assert resume_may_change(Marked) == ["section.interval", "layout", "output"]


@dataclass(kw_only=True, config=STRICT)
class Lists:
    languages: list[str]
    numbers: list[int]


@dataclass(kw_only=True, config=STRICT)
class Iterations:
    iterations: int | str | None = None


def test_a_list_for_a_single_value_of_several_types(write):
    with pytest.raises(UsageError) as refused:
        load(Iterations, write("{}"), ["iterations=[1, 2]"])
    assert str(refused.value) == (
        "override 'iterations=[1, 2]': iterations: should be a single value, not a list"
    )


def test_one_value_for_a_list_is_no_mistake_beside_another_one(write):
    with pytest.raises(UsageError) as refused:
        load(Lists, write("languages: en\n"), ["numbers=1,x"])
    assert str(refused.value) == "override 'numbers=1,x': numbers: should be a list: [a, b]"


def test_an_override_changes_one_of_two_sections_that_share_an_anchor(write, tmp_path):
    path = write("output: out\ntraining: &t {train_iters: 5}\nextra: *t\n")
    layer = tmp_path / "layer.yaml"
    layer.write_text("training: {train_iters: 7}\n")
    for override in ("training.train_iters=7", str(layer)):
        recipe = load(Recipe, path, [override])
        assert recipe.training.train_iters == 7
        assert recipe.extra.train_iters == 5


def test_a_mistake_of_the_recipe_is_not_reported_of_a_layer_with_the_same_section(write, tmp_path):
    path = write("output: out\ntraining:\n  train_iters: x\n")
    layer = tmp_path / "layer.yaml"
    layer.write_text("\n\ntraining: {lr: 1}\n")
    with pytest.raises(UsageError, match=r"recipe.yaml, line 3: training.train_iters: "):
        load(Recipe, path, [str(layer)])


def test_an_unknown_section_within_a_section_is_reported_of_its_override(write):
    with pytest.raises(UsageError, match=r"^override 'training.optim.lr=1': unknown key"):
        load(Recipe, write(GOOD), ["training.optim.lr=1"])
