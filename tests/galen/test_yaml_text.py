"""YAML made to hang, to eat memory or to end in a traceback is one message, at once."""

import itertools
import time

import pytest

from galen import yaml_text
from galen.errors import UsageError

LETTERS = "abcdefghijkl"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in itertools.pairwise(LETTERS)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in itertools.pairwise(LETTERS)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "line 5: not valid YAML: it expands to more than 50,000 values"),
        (MERGED, "it expands to more than 50,000 values"),
        ("a: &a [*a]\n", "an alias refers to the node that contains it"),
        ("a: &a\n  <<: *a\n", "an alias refers to the node that contains it"),
        ("a: " + "[" * 100_000, "or more than 64 levels"),
        ("a: " + "{a: " * 100_000, "or more than 64 levels"),
        ("- " * 100_000, "or more than 64 levels"),
        ("[a, b]: 1\n", "line 1: not valid YAML: a key must be a single value"),
        ("a: " + "9" * 10_000, "more than 400 digits"),
        ("a: " + ":".join("1" * 5000), "more than 400 digits"),
        ("a: !!int x\n", "not valid YAML: invalid literal"),
        ("a: !!int ''\n", "not valid YAML"),
        ("a: 2024-13-45\n", "not valid YAML: month must be in 1..12"),
        ("a: !!timestamp x\n", "not valid YAML"),
        ("a: \0", "not valid YAML: unacceptable character"),
        (
            "a: !!python/object/apply:os.system [id]\n",
            "not valid YAML: could not determine a constructor",
        ),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: 'x\n", "not valid YAML"),
        ("[1]", "a recipe is a mapping"),
    ],
)
def test_hostile_files(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode())
    started = time.monotonic()
    with pytest.raises(UsageError) as error:
        yaml_text.read(path)
    assert (
        message in str(error.value)
        and str(error.value).count("\n") == 0
        and len(str(error.value)) < 500
    )
    assert time.monotonic() - started < 10


def test_not_text_and_endless_files(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        yaml_text.read(path)
    path.write_bytes(b"# " + b"x" * yaml_text.MAX_BYTES)
    with pytest.raises(UsageError, match="this is not a recipe"):
        yaml_text.read(path)


@pytest.mark.parametrize("text", [r'"a\0b"', r'{"a\0b": 1}', r'["\ud83d\ude00"]'])
def test_texts_that_name_no_file_are_refused(text):
    with pytest.raises(UsageError, match="x: not valid YAML: a text holds a null character"):
        yaml_text.value(text, "x")


def test_plain_aliases_and_merges_stay(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &a {x: 1, y: [no, true]}\nb: {<<: *a, x: 2}\nc: *a\n")
    tree, lines = yaml_text.read(path)
    assert tree == {
        "a": {"x": 1, "y": ["no", True]},
        "b": {"x": 2, "y": ["no", True]},
        "c": {"x": 1, "y": ["no", True]},
    }
    assert lines["b", "x"] == 2
    assert yaml_text.value("[truely, True, null, 1]", "x") == ["truely", True, None, 1]
