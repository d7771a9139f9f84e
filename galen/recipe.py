"""Typed recipes: YAML and `key=value` overrides in, a checked dataclass out.

A recipe is a pydantic dataclass whose configuration is `STRICT`; its fields are documented by the
string below each, which also becomes the command's help:

    @dataclass(kw_only=True, config=STRICT)
    class Recipe:
        steps: int = 10
        \"\"\"Number of optimizer steps.\"\"\"
"""

import dataclasses
import datetime
import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from galen import yaml_text
from galen.errors import UsageError, did_you_mean
from galen.yaml_text import Location

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)

T = TypeVar("T")

_RESUME_MAY_CHANGE = "a resumed run may change it"
ResumeMayChange = Annotated[T, _RESUME_MAY_CHANGE]
"""Type of a key (a value or a section) in which a resumed run may differ from its first start."""


def load(recipe_class: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read the YAML file `path`, apply `overrides` in their order and validate.

    An override is `a.b=value`, the value in YAML, or the path of a further YAML file (`….yaml`),
    whose keys replace those that are there: a layout of GPUs, for example, beside the recipe of a
    model. One value where a list of values is wanted is a list of one.

    Raises:
        UsageError: the file cannot be read, or a key or value is wrong; names file, line, key and
            what is allowed.
    """
    tree, origin = _read(path, overrides)
    try:
        return _validated(recipe_class, tree)
    except ValidationError as error:
        items = error.errors()
        items = [item for item in items if not _is_redundant(item["loc"], items)]
        messages = [_explain(recipe_class, item, origin, str(path)) for item in items]
        raise UsageError("\n       ".join(dict.fromkeys(messages))) from None


def origins(recipe_class: type, path: str | Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return where the value of each key comes from, for messages; a default's is the file.

    Args:
        recipe_class: the recipe, whose keys these are; those of sections are left out.
        path: of the YAML file.
        overrides: as of `load`.

    Raises:
        UsageError: a file cannot be read, or an override is wrong.
    """
    _, origin = _read(path, overrides)
    return {name: origin.get((name,), str(path)) for name in _field_names(recipe_class)}


def _read(path: str | Path, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[Location, str]]:
    """Return the tree of a YAML file with its overrides, and where each key of it comes from."""
    tree, lines = yaml_text.read(Path(path))
    origin: dict[Location, str] = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        if "=" not in override and override.endswith((".yaml", ".yml")):
            layer, lines = yaml_text.read(Path(override))
            _merge(tree, layer)
            for key, line in lines.items():
                _set_origin(origin, key, f"{override}, line {line}")
        else:
            _set_origin(origin, _apply_override(tree, override), f"override {override!r}")
    return tree, origin


def _validated(recipe_class: type[T], tree: dict[str, Any]) -> T:
    """Return the recipe; where a list is wanted and one value is there, try a list of it."""
    adapter = TypeAdapter(recipe_class)
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        lists = [item["loc"] for item in error.errors() if item["type"] in _LISTS]
        singles = [_resolve(recipe_class, place)[0] for place in lists]
        wrapped = [place for place in dict.fromkeys(singles) if _wrap(tree, place)]
        if not wrapped:
            raise
        try:
            return adapter.validate_python(tree)
        except ValidationError as second:
            items = [_resolve(recipe_class, item["loc"])[0] for item in second.errors()]
            wrong = [p for p in wrapped if any(item[: len(p)] == p for item in items)]
            if not wrong:
                raise
            # a list of the value is wrong too: what was given is told, not what was tried
            for place in wrong:
                _unwrap(tree, place)
            return adapter.validate_python(tree)


_LISTS = {"list_type", "tuple_type", "set_type", "frozen_set_type"}


def _wrap(tree: Any, place: Location) -> bool:
    """Put the single value at a location into a list; return whether there is one."""
    *parents, last = place
    for part in parents:
        tree = tree[part]
    single = isinstance(tree[last], str | int | float)
    if single:
        tree[last] = [tree[last]]
    return single


def _unwrap(tree: Any, place: Location) -> None:
    """Put back the single value that `_wrap` put into a list."""
    *parents, last = place
    for part in parents:
        tree = tree[part]
    (tree[last],) = tree[last]


def _set_origin(origin: dict[Location, str], place: Location, where: str) -> None:
    """Note where the value at a location comes from; what stood below it is gone."""
    for known in [known for known in origin if known[: len(place)] == place]:
        del origin[known]
    origin[place] = where


def to_dict(recipe: Any) -> dict[str, Any]:
    """Return the recipe as plain JSON types, every default filled in."""
    tree: dict[str, Any] = TypeAdapter(type(recipe)).dump_python(recipe, mode="json")
    return tree


@dataclasses.dataclass(frozen=True)
class Variants:
    """Mark of a section whose class depends on a registry, such as the options of a reader.

    The section is annotated with the common base class; `validate_variant` checks it.
    """

    classes: Mapping[str, type]
    """For each name in the registry, a subclass of the section's class."""


def validate_variant(variant: type[T], key: str, value: Mapping[str, Any], owner: str) -> T:
    """Return a section as an instance of its variant's class; for a `before` validator.

    Args:
        variant: the class, a `STRICT` dataclass.
        key: the section's key.
        value: the section as read from YAML.
        owner: what has these options, for messages: "the reader 'jats'".

    Raises:
        ValidationError: a value is wrong or a key unknown; `load` adds file, line and key.
    """
    try:
        return TypeAdapter(variant).validate_python(value)
    except ValidationError as error:
        raise ValidationError.from_exception_data(
            variant.__name__,
            [_variant_error(variant, key, item, owner) for item in error.errors()],
        ) from None


def _variant_error(variant: type, key: str, item: Any, owner: str) -> InitErrorDetails:
    """Return an error again; of an unknown key, with the keys that the variant has."""
    kind, message = item["type"], item["msg"].removeprefix("Value error, ")
    if kind == "unexpected_keyword_argument":
        name = str(item["loc"][-1])
        hint = did_you_mean(name, _field_names(variant))
        message = f"{owner} has no option {name!r}; {hint}"
    if kind in ("unexpected_keyword_argument", "value_error"):
        kind = PydanticCustomError("value_error", message)
    details = InitErrorDetails(type=kind, loc=(key, *item["loc"]), input=item["input"])
    if "ctx" in item:
        details["ctx"] = item["ctx"]
    return details


def dump(recipe: Any) -> str:
    """Return the recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def resume_may_change(recipe_class: type, prefix: str = "") -> list[str]:
    """Return the dotted keys of a recipe class and its sections marked `ResumeMayChange`."""
    keys: list[str] = []
    for name, info in _fields(recipe_class).items():
        if _RESUME_MAY_CHANGE in info.metadata:
            keys.append(f"{prefix}{name}")
            continue
        for section in _plain_sections(info.annotation):
            keys += resume_may_change(section, f"{prefix}{name}.")
    return keys


def describe(recipe_class: type, indent: int = 2) -> str:
    """Return one line per key of a recipe class: name, default, documentation; indents sections."""
    lines = []
    for name, info in _fields(recipe_class).items():
        documentation = " ".join((info.description or "").split())
        sections = list(dict.fromkeys(_sections(info.annotation)))
        if len(sections) > 1:  # a union: the branches by their marks
            lines.append(f"{' ' * indent}{name}:  {documentation}".rstrip())
            for section in sections:
                lines.append(
                    f"{' ' * (indent + 2)}{_tags(section)[0]}: "
                    f" {' '.join((section.__doc__ or '').split())}"
                )
                lines.extend(
                    line
                    for line in describe(section, indent + 4).splitlines()
                    if not line.lstrip().startswith(f"{_mark(section)} [")
                )
        elif sections:
            required = info.is_required() and not isinstance(info.annotation, type)
            mark = " [required]" if required else ""
            lines.append(f"{' ' * indent}{name}{mark}:  {documentation}".rstrip())
            lines.append(describe(sections[0], indent + 2))
            for variants in info.metadata:
                if isinstance(variants, Variants):
                    lines += _describe_variants(variants, sections[0], indent + 2)
        else:
            default = "required"
            if not info.is_required():
                default = json.dumps(info.get_default(call_default_factory=True), default=str)
            lines.append(f"{' ' * indent}{name} [{default}]  {documentation}".rstrip())
    return "\n".join(lines)


def _describe_variants(variants: Variants, common: type, indent: int) -> list[str]:
    """Return the lines of the keys that variants have besides those of the common class.

    Each key is listed once, with the names of the variants that have it.
    """
    common_names = _field_names(common)
    owners: dict[str, list[str]] = {}
    for name, variant in variants.classes.items():
        for line in describe(variant, indent + 2).splitlines():
            if line.split()[0] not in common_names:
                owners.setdefault(line, []).append(name)
    lines = []
    heading = ""
    for line, names in owners.items():
        if heading != ", ".join(names):
            heading = ", ".join(names)
            lines.append(f"{' ' * indent}{heading}:")
        lines.append(line)
    return lines


def _mark(section: type) -> str:
    """Return the name of the field that marks a branch of a union: its first `Literal`."""
    fields = _fields(section)
    return next(
        name for name, info in fields.items() if typing.get_origin(info.annotation) is Literal
    )


def _merge(tree: dict[str, Any], layer: dict[str, Any]) -> None:
    """Replace values of `tree` by those of `layer`; sections are merged, lists replaced."""
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _apply_override(tree: dict[str, Any], override: str) -> Location:
    """Set one `a.b.0.c=value` in the tree and return its location."""
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
    part: Any
    for depth, part in enumerate(location):
        place = ".".join(map(str, location[:depth]))
        if isinstance(node, list) and not (isinstance(part, int) and part < len(node)):
            raise UsageError(
                f"override {override!r}: {place} is a list of {len(node)}; {part!r} is not one of"
                " its places"
            )
        if not isinstance(node, list | dict):
            raise UsageError(f"override {override!r}: {place} is a value, not a section")
        if depth == len(location) - 1:
            node[part] = value
        elif isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[part]
    return location


def _explain(recipe_class: type, item: Any, origin: dict[Location, str], path: str) -> str:
    """Turn one pydantic error into a sentence: where, which key, what is wrong, what is right."""
    location, section = _resolve(recipe_class, item["loc"])
    key = ".".join(map(str, location))
    where = next(
        (origin[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origin), path
    )
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        # "dats.seed=1" would make a section of that name
        made = (said for known, said in origin.items() if known[: len(location)] == location)
        where = next(made, where) if where == path else where
        return (
            f"{where}: unknown key {key!r}; {_suggestion(recipe_class, section, str(location[-1]))}"
        )
    if item["type"] in ("missing", "missing_argument"):
        return f"{where}: key {key!r} is missing"
    if item["type"] == "union_tag_invalid":
        mark, given = item["ctx"]["discriminator"].strip("'"), item["ctx"]["tag"]
        known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{where}: {key}: unknown {mark} {given!r}; {did_you_mean(given, known)}"
    if item["type"] == "union_tag_not_found":
        return f"{where}: {key}: the key {item['ctx']['discriminator']} is missing"
    if location:  # a check of a section: the file has its line, but perhaps not all of its keys
        below = {said for known, said in origin.items() if known[: len(location)] == location}
        given = sorted(said for said in below - {where} if said.startswith("override "))
        where = " with ".join([where, " and ".join(given)] if given else [where])
    return f"{where}: {key + ': ' if key else ''}{_message(item)}"


def _message(item: Any) -> str:
    """Return what is wrong with a value."""
    if item["type"] in _LISTS:
        return "should be a list: [a, b]"
    if item["type"] == "string_type" and isinstance(
        item["input"], bool | int | float | datetime.date
    ):
        kind = {bool: "a truth value", int: "a number", float: "a number"}.get(
            type(item["input"]), "a date"
        )
        return f"YAML reads {item['input']} as {kind}; in quotes it is a valid string"
    return str(item["msg"]).removeprefix("Value error, ")


def _suggestion(recipe_class: type, section: type | None, name: str) -> str:
    """Return the end of a message about an unknown key.

    It names this key in another section, else a similar one, else all.
    """
    elsewhere = [key for key in _keys(recipe_class) if key.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
    own = _field_names(section)
    leaves = {key.rpartition(".")[2]: key for key in _keys(recipe_class)}
    close = difflib.get_close_matches(name, [*own, *leaves], n=1, cutoff=0.8)
    if close and close[0] not in own:
        return f"did you mean {leaves[close[0]]!r}?"
    return did_you_mean(name, own)


def _keys(section: type, prefix: str = "", depth: int = 4) -> Iterator[str]:
    """Yield the dotted name of each key of a recipe class and its sections, lists excluded."""
    for name, info in _fields(section).items():
        yield prefix + name
        for below in _plain_sections(info.annotation) if depth else ():
            yield from _keys(below, f"{prefix}{name}.", depth - 1)


def _plain_sections(annotation: Any) -> Iterator[type]:
    """Yield the dataclasses that a field may hold itself, not within a list or a dict."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    elif typing.get_origin(annotation) in (types.UnionType, typing.Union, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _plain_sections(argument)


def _is_redundant(place: Location, items: Sequence[Any]) -> bool:
    """Return whether an error is only about the other branch (text) of a section's union.

    The section has errors of its own.
    """
    return place[-1:] == ("str",) and any(
        item["loc"][: len(place) - 1] == place[:-1] and len(item["loc"]) > len(place)
        for item in items
    )


def _resolve(recipe_class: type, raw: Location) -> tuple[Location, type | None]:
    """Return the keys of a pydantic error's location and the dataclass of the last.

    Marks for branches of unions are left out.
    """
    location: list[str | int] = []
    choices: list[type] = [recipe_class]
    for depth, part in enumerate(raw):
        branch = [
            section
            for section in choices
            if len(choices) > 1 and part in (section.__name__, *_tags(section))
        ]
        if branch:
            choices = branch
        elif isinstance(part, int):
            location.append(part)
        elif part not in {"str", *(section.__name__ for section in choices)} and "[" not in part:
            location.append(part)
            known = [_fields(choice) for choice in choices]
            fields = next((fields for fields in known if part in fields), None)
            if depth < len(raw) - 1:
                # else it is a key of a dict of sections
                choices = list(_sections(fields[part].annotation)) if fields else choices
    return tuple(location), choices[0] if choices else None


def _fields(section: type) -> dict[str, Any]:
    """Return pydantic's records of a section's fields."""
    return section.__pydantic_fields__  # type: ignore[attr-defined,no-any-return]


def _tags(section: type) -> tuple[Any, ...]:
    """Return the values of a section's `Literal` fields, one of which marks it in a union."""
    annotations = (info.annotation for info in _fields(section).values())
    return tuple(
        value
        for annotation in annotations
        if typing.get_origin(annotation) is Literal
        for value in typing.get_args(annotation)
    )


def _field_names(section: type | None) -> list[str]:
    if section is None or not dataclasses.is_dataclass(section):
        return []
    return [field.name for field in dataclasses.fields(section)]


def _sections(annotation: Any) -> Iterator[type]:
    """Yield the dataclasses named in an annotation: itself, or inside Optional, list, dict."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    elif typing.get_origin(annotation) in (
        types.UnionType,
        typing.Union,
        list,
        dict,
        tuple,
        typing.Annotated,
    ):
        for argument in typing.get_args(annotation):
            yield from _sections(argument)
