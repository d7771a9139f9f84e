import pytest

from galen.errors import UsageError
from galen.option_recipe import OptionParser


@pytest.fixture
def parser():
    made = OptionParser("Convert.")
    made.add_argument("--model-name", required=True)
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--no-verify", action="store_true")
    return made


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model_name: a\nworkers: 2\nno_verify: true\n")
    return str(path)


def test_flags_alone(parser):
    assert vars(parser.parse(["--model-name", "a"])) == {
        "log_level": "info",
        "model_name": "a",
        "workers": 1,
        "no_verify": False,
    }


def test_an_override_replaces_the_recipe_and_a_flag_both(parser, recipe_file):
    assert parser.parse([recipe_file]).workers == 2
    assert parser.parse([recipe_file, "workers=3"]).workers == 3
    found = parser.parse([recipe_file, "workers=3", "no_verify=false", "--workers", "4"])
    assert (found.model_name, found.workers, found.no_verify) == ("a", 4, False)


def test_the_level_of_the_log_may_come_first(parser, recipe_file):
    for words in (["--log-level", "error"], ["--log-level=error"]):
        found = parser.parse([*words, recipe_file, "workers=3"])
        assert (found.log_level, found.workers) == ("error", 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["worker=3"], "override 'worker=3': unknown key 'worker'; did you mean 'workers'"),
        (["workers"], "override 'workers': write key=value"),
        (["workers=[1, 2]"], "workers must be one value"),
        (["workers=false"], "override 'workers=false': workers must be one value"),
        (["model_name=true"], "override 'model_name=true': model_name must be one value"),
        (["no_verify=5"], "override 'no_verify=5': no_verify must be true or false"),
        (["no_verify='false'"], "no_verify must be true or false"),
        (["log_level=debug"], "unknown key 'log_level'"),
    ],
)
def test_mistakes_name_their_origin(parser, recipe_file, overrides, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        parser.parse([recipe_file, *overrides])


def test_a_later_check_of_a_value_names_its_line(parser, recipe_file):
    parser.parse([recipe_file])
    with pytest.raises(UsageError, match=r"recipe\.yaml, line 2: workers must be at least 3"):
        parser.error("--workers must be at least 3")


def test_a_mistake_in_the_file_names_its_line(parser, tmp_path):
    (tmp_path / "r.yaml").write_text("model_name: a\nwrkers: 2\n")
    with pytest.raises(UsageError, match=r"r\.yaml, line 2: unknown key 'wrkers'; did you mean"):
        parser.parse([str(tmp_path / "r.yaml")])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x"], "expected a recipe (….yaml) or options: --model-name …"),
        (["--model-name", "a", "--no-verify", "workers=2"], "come before the options"),
        (["RECIPE", "workers=two"], "override 'workers=two': workers: invalid int value: 'two'"),
        (["RECIPE", "--workers", "two"], "argument --workers: invalid int value: 'two'"),
        (["RECIPE", "--wrong"], "unknown option '--wrong'; `"),
        (["RECIPE", "--worker", "3"], "unknown option '--worker'; did you mean '--workers'?"),
        (["RECIPE", "model_name=null"], "the following arguments are required: model_name"),
    ],
)
def test_wrong_usage_is_refused(parser, recipe_file, argv, message):
    with pytest.raises(UsageError) as refused:
        parser.parse([recipe_file if word == "RECIPE" else word for word in argv])
    assert message in str(refused.value)


def test_a_key_that_a_merge_brings_in_has_the_line_of_the_merge(parser, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model_name: a\n<<: {workers: 3}\n")
    assert parser.parse([str(path)]).workers == 3
    path.write_text("model_name: a\n<<: {workers: x}\n")
    with pytest.raises(UsageError, match=r"recipe.yaml, line 2: workers: invalid int value: 'x'"):
        parser.parse([str(path)])


def test_a_wrong_value_that_an_option_replaces_does_not_matter(parser, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model_name: a\nworkers: x\n")
    assert parser.parse([str(path), "--workers", "4"]).workers == 4


@pytest.mark.parametrize("text", ["010", "12:30", "2026-11-30"])
def test_text_is_not_read_as_a_number(parser, recipe_file, tmp_path, text):
    assert parser.parse([recipe_file, f"model_name={text}"]).model_name == text
    bare = tmp_path / "bare.yaml"
    bare.write_text(f"model_name: {text}\n")
    with pytest.raises(UsageError, match=r"line 1: model_name must be text: write it in quotes"):
        parser.parse([str(bare)])
