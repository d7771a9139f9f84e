"""The fields of recipe classes; the only module that reads pydantic's records of them."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from galen.yaml_text import Location

SCALARS = {"str", "int", "float", "bool"}
"""Names of types as pydantic marks the branches of unions."""
_UNIONS = (types.UnionType, typing.Union, typing.Annotated)
_CONTAINERS = (list, dict, tuple)


class Field:
    """A key of a section, with its type, default and documentation."""

    def __init__(self, info: Any, inherited_documentation: str = "") -> None:
        self._info = info
        self._inherited_documentation = inherited_documentation

    @property
    def annotation(self) -> Any:
        """Type of the value, without the outermost `Annotated`."""
        return self._info.annotation

    @property
    def marks(self) -> list[Any]:
        """Further arguments of `Annotated`."""
        return list(self._info.metadata)

    @property
    def documentation(self) -> str:
        """The string below the field, as one line."""
        text = self._info.description or self._inherited_documentation
        return " ".join(text.split())

    @property
    def required(self) -> bool:
        """Whether the key has no default."""
        return bool(self._info.is_required())

    def default(self) -> Any:
        """Return the default of a key that is not required."""
        return self._info.get_default(call_default_factory=True)

    @property
    def literals(self) -> tuple[Any, ...]:
        """Values of a `Literal`; none for other types."""
        if typing.get_origin(self.annotation) is Literal:
            return typing.get_args(self.annotation)
        return ()


def fields(section: type) -> dict[str, Field]:
    """Return the fields of a recipe class or one of its sections by name."""
    dataclass: Any = section
    # pydantic reads the documentation of a class' own fields only
    inherited: dict[str, str] = {}
    for base in section.__mro__[1:]:
        for name, info in getattr(base, "__pydantic_fields__", {}).items():
            inherited.setdefault(name, info.description or "")
    return {
        name: Field(info, inherited.get(name, ""))
        for name, info in dataclass.__pydantic_fields__.items()
    }


def field_names(section: type | None) -> list[str]:
    """Return the names of a section's fields; none for anything else."""
    if section is None or not dataclasses.is_dataclass(section):
        return []
    return [field.name for field in dataclasses.fields(section)]


def sections(annotation: Any) -> Iterator[type]:
    """Yield the dataclasses in an annotation: itself, or in a union, list, dict or tuple."""
    return _dataclasses(annotation, (*_UNIONS, *_CONTAINERS))


def direct_sections(annotation: Any) -> Iterator[type]:
    """Yield the dataclasses that a field may hold itself, not within a list or dict."""
    return _dataclasses(annotation, _UNIONS)


def _dataclasses(annotation: Any, wrappers: tuple[Any, ...]) -> Iterator[type]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    elif typing.get_origin(annotation) in wrappers:
        for argument in typing.get_args(annotation):
            yield from _dataclasses(argument, wrappers)


def tags(section: type) -> tuple[Any, ...]:
    """Return the values of a section's `Literal` fields, one of which marks it in a union."""
    values: list[Any] = []
    for field in fields(section).values():
        values += field.literals
    return tuple(values)


def tag_name(section: type) -> str:
    """Return the name of the field that marks a branch of a union: its first `Literal`."""
    return next(name for name, field in fields(section).items() if field.literals)


def keys(section: type, prefix: str = "", depth: int = 4) -> Iterator[str]:
    """Yield the dotted name of each key of a recipe class and its sections, lists excluded."""
    for name, field in fields(section).items():
        yield prefix + name
        for child in direct_sections(field.annotation) if depth else ():
            yield from keys(child, f"{prefix}{name}.", depth - 1)


def locate(recipe_class: type, error_location: Location) -> tuple[Location, type | None]:
    """Return the keys of a pydantic error's location, and the dataclass of the last one.

    Pydantic's marks for the branches of unions are omitted.
    """
    location: list[str | int] = []
    choices: list[type] = [recipe_class]
    for depth, part in enumerate(error_location):
        branches = _branches(choices, part)
        if branches:
            choices = branches
        elif isinstance(part, int):
            location.append(part)
        elif not _is_mark(choices, part):
            location.append(part)
            is_last = depth == len(error_location) - 1
            if not is_last:
                choices = _sections_of(choices, part)
    return tuple(location), choices[0] if choices else None


def _branches(choices: list[type], part: str | int) -> list[type]:
    """Return the sections of a union that a part of a location selects."""
    if len(choices) < 2:
        return []
    return [section for section in choices if part in (section.__name__, *tags(section))]


def _is_mark(choices: list[type], part: str) -> bool:
    """Return whether a part of a location names a type rather than a key."""
    return part in SCALARS or "[" in part or part in [section.__name__ for section in choices]


def _sections_of(choices: list[type], key: str) -> list[type]:
    """Return the sections that a key of the first section with that key may hold."""
    for section in choices:
        field = fields(section).get(key)
        if field is not None:
            return list(sections(field.annotation))
    return choices  # a key of a dict of sections
