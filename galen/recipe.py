"""Typed recipes: YAML and `key=value` overrides in, a checked dataclass out.

A recipe is a pydantic dataclass whose configuration is `STRICT`; its fields are documented by the string below each,
which also becomes the command's help:

    @dataclass(kw_only=True, config=STRICT)
    class Recipe:
        steps: int = 10
        \"\"\"Number of optimizer steps.\"\"\"
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from galen.errors import UsageError, nearest

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)

T = TypeVar("T")
Location = tuple[str | int, ...]


def load(recipe_class: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read the YAML file `path`, apply `overrides` in their order and validate.

    An override is `a.b=value`, the value in YAML, or the path of a further YAML file (`….yaml`), whose keys replace those
    that are there: a layout of GPUs, for example, beside the recipe of a model.

    Raises:
        UsageError: the file cannot be read, or a key or value is wrong; names file, line, key and what is allowed.
    """
    tree, lines = _read_yaml(Path(path))
    origin: dict[Location, str] = {key: f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        if "=" not in override and override.endswith((".yaml", ".yml")):
            layer, lines = _read_yaml(Path(override))
            _merge(tree, layer)
            origin |= {key: f"{override}, line {line}" for key, line in lines.items()}
        else:
            origin[_apply_override(tree, override)] = f"override {override!r}"
    try:
        return TypeAdapter(recipe_class).validate_python(tree)
    except ValidationError as error:
        items = error.errors()
        items = [item for item in items if not _beside_the_point(item["loc"], items)]
        messages = [_explain(recipe_class, item, origin, str(path)) for item in items]
        raise UsageError("\n       ".join(dict.fromkeys(messages))) from None


def to_dict(recipe: Any) -> dict[str, Any]:
    """Return the recipe as plain JSON types, every default filled in."""
    return TypeAdapter(type(recipe)).dump_python(recipe, mode="json")


def dump(recipe: Any) -> str:
    """Return the recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def describe(recipe_class: type, indent: int = 2) -> str:
    """Return one line per key of a recipe class: name, default, documentation; sections are indented."""
    lines = []
    for name, info in recipe_class.__pydantic_fields__.items():  # type: ignore[attr-defined]
        documentation = " ".join((info.description or "").split())
        sections = list(dict.fromkeys(_sections(info.annotation)))
        if len(sections) > 1:  # a union: the branches by their marks
            lines.append(f"{' ' * indent}{name}:  {documentation}".rstrip())
            for section in sections:
                lines.append(f"{' ' * (indent + 2)}{_tags(section)[0]}:  {' '.join((section.__doc__ or '').split())}")
                lines.extend(
                    line for line in describe(section, indent + 4).splitlines() if not line.lstrip().startswith(f"{_mark(section)} [")
                )
        elif sections:
            mark = " [required]" if info.is_required() and not isinstance(info.annotation, type) else ""
            lines.append(f"{' ' * indent}{name}{mark}:  {documentation}".rstrip())
            lines.append(describe(sections[0], indent + 2))
        else:
            default = "required" if info.is_required() else json.dumps(info.get_default(call_default_factory=True), default=str)
            lines.append(f"{' ' * indent}{name} [{default}]  {documentation}".rstrip())
    return "\n".join(lines)


def _mark(section: type) -> str:
    """Return the name of the field that marks a branch of a union: its first `Literal`."""
    fields = section.__pydantic_fields__  # type: ignore[attr-defined]
    return next(name for name, info in fields.items() if typing.get_origin(info.annotation) is Literal)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """Return the mapping in a YAML file and the line number of each key in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    try:
        tree = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a recipe is a mapping of keys to values, this is a {type(tree).__name__}")
    lines: dict[Location, int] = {}
    for key, line in _key_lines(root, ()):
        if key in lines:  # YAML would silently forget the first
            raise UsageError(f"{path}, line {line}: {'.'.join(map(str, key))!r} is given twice, first in line {lines[key]}")
        lines[key] = line
    return tree, lines


def _key_lines(node: Any, prefix: Location) -> Iterator[tuple[Location, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*prefix, key.value), key.start_mark.line + 1
            yield from _key_lines(value, (*prefix, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*prefix, index), value.start_mark.line + 1
            yield from _key_lines(value, (*prefix, index))


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
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"override {override!r}: the value is not valid YAML: {getattr(error, 'problem', error)}") from None
    location: Location = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    node: Any = tree
    part: Any
    for depth, part in enumerate(location):
        place = ".".join(map(str, location[:depth]))
        if isinstance(node, list) and not (isinstance(part, int) and part < len(node)):
            raise UsageError(f"override {override!r}: {place} is a list of {len(node)}; {part!r} is not one of its places")
        if not isinstance(node, list | dict):
            raise UsageError(f"override {override!r}: {place} is a value, not a section")
        if depth == len(location) - 1:
            node[part] = value
        elif isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[part]
    return location


def _explain(recipe_class: type, item: Any, origin: dict[Location, str], path: str) -> str:
    """Turn one pydantic error into a sentence: where, which key, what is wrong, what would be right."""
    location, section = _resolve(recipe_class, item["loc"])
    key = ".".join(map(str, location))
    where = next((origin[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origin), path)
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{where}: unknown key {key!r}; {nearest(str(location[-1]), _field_names(section))}"
    if item["type"] in ("missing", "missing_argument"):
        return f"{where}: key {key!r} is missing"
    if item["type"] == "union_tag_invalid":
        mark, given = item["ctx"]["discriminator"].strip("'"), item["ctx"]["tag"]
        known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{where}: {key}: unknown {mark} {given!r}; {nearest(given, known)}"
    if item["type"] == "union_tag_not_found":
        return f"{where}: {key}: the key {item['ctx']['discriminator']} is missing"
    message = "should be a list: [a, b]" if item["type"] == "list_type" else item["msg"].removeprefix("Value error, ")
    return f"{where}: {key + ': ' if key else ''}{message}"


def _beside_the_point(place: Location, items: Sequence[Any]) -> bool:
    """Say whether an error only tells that a section, which has errors of its own, is no text: the other branch of a union."""
    return place[-1:] == ("str",) and any(item["loc"][: len(place) - 1] == place[:-1] and len(item["loc"]) > len(place) for item in items)


def _resolve(recipe_class: type, raw: Location) -> tuple[Location, type | None]:
    """Return the keys of a pydantic error's location, without marks for branches of unions, and the dataclass of the last."""
    location: list[str | int] = []
    choices: list[type] = [recipe_class]
    for depth, part in enumerate(raw):
        branch = [section for section in choices if len(choices) > 1 and part in (section.__name__, *_tags(section))]
        if branch:
            choices = branch
        elif isinstance(part, int):
            location.append(part)
        elif part not in {"str", *(section.__name__ for section in choices)} and "[" not in part:
            location.append(part)
            fields = next((c.__pydantic_fields__ for c in choices if part in c.__pydantic_fields__), None)  # type: ignore[attr-defined]
            if depth < len(raw) - 1:
                choices = list(_sections(fields[part].annotation)) if fields else choices  # else it is a key of a dict of sections
    return tuple(location), choices[0] if choices else None


def _tags(section: type) -> tuple[Any, ...]:
    """Return the values of a section's `Literal` fields, one of which marks it in a union."""
    annotations = (info.annotation for info in section.__pydantic_fields__.values())  # type: ignore[attr-defined]
    return tuple(value for annotation in annotations if typing.get_origin(annotation) is Literal for value in typing.get_args(annotation))


def _field_names(section: type | None) -> list[str]:
    return [field.name for field in dataclasses.fields(section)] if section is not None else []  # type: ignore[arg-type]


def _sections(annotation: Any) -> Iterator[type]:
    """Yield the dataclasses named in an annotation: itself, or inside Optional, list, dict."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    elif typing.get_origin(annotation) in (types.UnionType, typing.Union, list, dict, tuple, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _sections(argument)
