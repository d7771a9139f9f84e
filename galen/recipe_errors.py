"""Messages about a recipe's mistakes: file, line, key, what is wrong and what is allowed."""

import datetime
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from galen import recipe_schema
from galen.errors import did_you_mean
from galen.yaml_text import Location

Origins = Mapping[Location, str]
"""File and line, or override, of each location."""

LIST_TYPES = {"list_type", "tuple_type", "set_type", "frozen_set_type"}
"""Pydantic's errors about a value that should be a list."""
_SCALAR_TYPES = {"string_type", "int_type", "float_type", "bool_type", "literal_error"}
_UNKNOWN_KEY = {"unexpected_keyword_argument", "extra_forbidden"}
_MISSING_KEY = {"missing", "missing_argument"}


def explain(recipe_class: type, errors: Sequence[Any], origins: Origins, path: str) -> str:
    """Return one line for each of pydantic's errors about a recipe.

    Args:
        recipe_class: class of the recipe.
        errors: dictionaries with `loc`, `type`, `msg`, `input` and `ctx`.
        origins: of the recipe's values.
        path: file of the recipe.
    """
    messages = [
        _message(recipe_class, error, origins, path)
        for error in errors
        if not _is_redundant(error["loc"], errors)
    ]
    return "\n       ".join(dict.fromkeys(messages))


def _is_redundant(location: Location, errors: Sequence[Any]) -> bool:
    """Return whether an error is about the scalar branch of a union with a better error.

    The better error is one within the section or list.
    """
    if not location or location[-1] not in recipe_schema.SCALARS:
        return False
    parent = location[:-1]
    return any(
        error["loc"][: len(parent)] == parent and len(error["loc"]) > len(location)
        for error in errors
    )


def _message(recipe_class: type, error: Any, origins: Origins, path: str) -> str:
    """Return one of pydantic's errors as a sentence."""
    location, section = recipe_schema.locate(recipe_class, error["loc"])
    key = ".".join(map(str, location))
    origin = _origin(location, origins) or path
    if error["type"] in _UNKNOWN_KEY:
        if location not in origins:  # "dats.seed=1" would create a section of that name
            origin = next(iter(_origins_below(location, origins)), origin)
        hint = _suggestion(recipe_class, section, str(location[-1]))
        return f"{origin}: unknown key {key!r}; {hint}"
    if error["type"] in _MISSING_KEY:
        return f"{origin}: key {key!r} is missing"
    if error["type"] == "union_tag_invalid":
        tag_name = error["ctx"]["discriminator"].strip("'")
        tag = error["ctx"]["tag"]
        known = error["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{origin}: {key}: unknown {tag_name} {tag!r}; {did_you_mean(tag, known)}"
    if error["type"] == "union_tag_not_found":
        return f"{origin}: {key}: the key {error['ctx']['discriminator']} is missing"
    if location:  # a check of a section: overrides may have changed some of its keys
        overrides = sorted(
            below
            for below in set(_origins_below(location, origins)) - {origin}
            if below.startswith("override ")
        )
        if overrides:
            origin += f" with {' and '.join(overrides)}"
    return f"{origin}: {key + ': ' if key else ''}{_problem(error)}"


def _origin(location: Location, origins: Origins) -> str | None:
    """Return the origin of a location, or of the nearest section around it."""
    for length in range(len(location), 0, -1):
        if location[:length] in origins:
            return origins[location[:length]]
    return None


def _origins_below(location: Location, origins: Origins) -> list[str]:
    """Return the origins of a location and everything within it."""
    return [origin for known, origin in origins.items() if known[: len(location)] == location]


def _problem(error: Any) -> str:
    """Return what is wrong with a value."""
    value = error["input"]
    if error["type"] in LIST_TYPES:
        return "should be a list: [a, b]"
    if error["type"] in _SCALAR_TYPES and isinstance(value, list | tuple):
        return "should be a single value, not a list"
    if error["type"] in _SCALAR_TYPES and isinstance(value, dict):
        return "should be a single value, not a section"
    if error["type"] == "string_type" and isinstance(value, bool | int | float | datetime.date):
        names = {bool: "a truth value", int: "a number", float: "a number"}
        name = names.get(type(value), "a date")
        return f"YAML reads {value} as {name}; in quotes it is a valid string"
    return str(error["msg"]).removeprefix("Value error, ")


def _suggestion(recipe_class: type, section: type | None, name: str) -> str:
    """Return the end of a message about an unknown key.

    It names this key in another section, else a similar one, else all.
    """
    keys = list(recipe_schema.keys(recipe_class))
    elsewhere = [key for key in keys if key.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
    own = recipe_schema.field_names(section)
    leaves = {key.rpartition(".")[2]: key for key in keys}
    close = difflib.get_close_matches(name, [*own, *leaves], n=1, cutoff=0.8)
    if close and close[0] not in own:
        return f"did you mean {leaves[close[0]]!r}?"
    return did_you_mean(name, own)
