"""Typed recipes: YAML and `key=value` overrides in, a checked dataclass out.

A recipe is a pydantic dataclass whose configuration is `STRICT`; its fields are documented by the
string below each, which also becomes the command's help:

    @dataclass(kw_only=True, config=STRICT)
    class Recipe:
        steps: int = 10
        \"\"\"Number of optimizer steps.\"\"\"
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from galen import recipe_errors, recipe_schema, yaml_text
from galen.errors import UsageError
from galen.recipe_schema import locate
from galen.yaml_text import Location

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)

T = TypeVar("T")

_RESUME_MAY_CHANGE = "a resumed run may change it"
ResumeMayChange = Annotated[T, _RESUME_MAY_CHANGE]
"""Type of a key (a value or a section) in which a resumed run may differ from its first start."""


def load(recipe_class: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read the YAML file `path`, apply `overrides` in their order and validate.

    An override is `a.b=value`, the value in YAML, or the path of a further YAML file (`….yaml`)
    whose keys replace existing ones, for example a GPU layout beside the recipe of a model. A
    single value where a list is expected is a list of one.

    Raises:
        UsageError: the file cannot be read, or a key or value is wrong; names file, line, key and
            the allowed values.
    """
    tree, origins_by_location = _read(path, overrides)
    try:
        return _validated(recipe_class, tree)
    except ValidationError as error:
        message = recipe_errors.explain(
            recipe_class, error.errors(), origins_by_location, str(path)
        )
        raise UsageError(message) from None


def origins(recipe_class: type, path: str | Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return the origin of each key's value, for messages; a default's is the file.

    Args:
        recipe_class: the recipe class; keys of its sections are omitted.
        path: YAML file.
        overrides: as of `load`.

    Raises:
        UsageError: a file cannot be read, or an override is wrong.
    """
    _, origins_by_location = _read(path, overrides)
    names = recipe_schema.field_names(recipe_class)
    return {name: origins_by_location.get((name,), str(path)) for name in names}


def _read(path: str | Path, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[Location, str]]:
    """Return the tree of a YAML file with its overrides, and the origin of each location."""
    tree, lines = yaml_text.read(Path(path))
    origins: dict[Location, str] = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        if "=" not in override and override.endswith((".yaml", ".yml")):
            layer, lines = yaml_text.read(Path(override))
            for replaced in _merge(tree, layer):
                _forget_origins(origins, replaced)
            origins.update((key, f"{override}, line {line}") for key, line in lines.items())
        else:
            location = _apply_override(tree, override)
            _forget_origins(origins, location)
            origins[location] = f"override {override!r}"
    return tree, origins


def _validated(recipe_class: type[T], tree: dict[str, Any]) -> T:
    """Return the recipe; a single value where a list is expected becomes a list of one."""
    adapter = TypeAdapter(recipe_class)
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        wrapped = _wrap_single_values(recipe_class, tree, error)
        if not wrapped:
            raise
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        locations = [locate(recipe_class, item["loc"])[0] for item in error.errors()]
        wrong = [
            location
            for location in wrapped
            if any(other[: len(location)] == location for other in locations)
        ]
        if not wrong:
            raise
    # a list of the value is wrong, too: report the value as the user wrote it
    for location in wrong:
        _unwrap(tree, location)
    return adapter.validate_python(tree)


def _wrap_single_values(
    recipe_class: type, tree: dict[str, Any], error: ValidationError
) -> list[Location]:
    """Make lists of single values where lists are expected; return their locations."""
    expected = [
        locate(recipe_class, item["loc"])[0]
        for item in error.errors()
        if item["type"] in recipe_errors.LIST_TYPES
    ]
    return [location for location in dict.fromkeys(expected) if _wrap(tree, location)]


def _wrap(tree: Any, location: Location) -> bool:
    """Put the single value at a location into a list; return whether there is one."""
    *parents, last = location
    for key in parents:
        tree = tree[key]
    is_single = isinstance(tree[last], str | int | float)
    if is_single:
        tree[last] = [tree[last]]
    return is_single


def _unwrap(tree: Any, location: Location) -> None:
    """Undo `_wrap`."""
    *parents, last = location
    for key in parents:
        tree = tree[key]
    (tree[last],) = tree[last]


def _forget_origins(origins: dict[Location, str], location: Location) -> None:
    """Remove the origins of a location and everything within it, as its value is replaced."""
    for known in list(origins):
        if known[: len(location)] == location:
            del origins[known]


def to_dict(recipe: Any) -> dict[str, Any]:
    """Return the recipe as plain JSON types, every default filled in."""
    tree: dict[str, Any] = TypeAdapter(type(recipe)).dump_python(recipe, mode="json")
    return tree


def dump(recipe: Any) -> str:
    """Return the recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def resume_may_change(recipe_class: type, prefix: str = "") -> list[str]:
    """Return the dotted keys of a recipe class and its sections marked `ResumeMayChange`."""
    keys: list[str] = []
    for name, field in recipe_schema.fields(recipe_class).items():
        if _RESUME_MAY_CHANGE in field.marks:
            keys.append(f"{prefix}{name}")
            continue
        for section in recipe_schema.direct_sections(field.annotation):
            keys += resume_may_change(section, f"{prefix}{name}.")
    return keys


def _merge(
    tree: dict[str, Any], layer: dict[str, Any], prefix: Location = ()
) -> Iterator[Location]:
    """Replace values of `tree` by those of `layer`; sections are merged, lists replaced.

    Yields:
        The location of each replaced value.
    """
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            yield from _merge(tree[key], value, (*prefix, key))
        else:
            tree[key] = value
            yield (*prefix, key)


def _apply_override(tree: dict[str, Any], override: str) -> Location:
    """Set one `a.b.0.c=value` in the tree and return its location.

    Raises:
        UsageError: it is not of that form, or names something within a single value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"override {override!r}: write key=value, for example output=DIR")
    value = yaml_text.value(text, f"override {override!r}")
    location: Location = tuple(
        int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in key.split(".")
    )
    if len(location) > yaml_text.MAX_DEPTH:
        raise UsageError(
            f"override {override[:40]!r}…: the key has more than {yaml_text.MAX_DEPTH} levels"
        )
    node: Any = tree
    for depth, part in enumerate(location):
        parent = ".".join(map(str, location[:depth]))
        if isinstance(node, list) and not (isinstance(part, int) and part < len(node)):
            raise UsageError(
                f"override {override!r}: {parent} is a list of {len(node)} and has no item {part!r}"
            )
        if not isinstance(node, list | dict):
            raise UsageError(f"override {override!r}: {parent} is a value, not a section")
        child: Any = part  # a key or an index
        if depth == len(location) - 1:
            node[child] = value
        elif isinstance(node, dict) and node.get(child) is None:
            node[child] = {}
        node = node[child]
    return location
