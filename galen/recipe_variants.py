"""Sections of a recipe whose class depends on a registry, such as the options of a reader."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from galen.errors import did_you_mean
from galen.recipe_schema import field_names

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Variants:
    """Mark of such a section.

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
        owner: owner of these options, for messages: "the reader 'jats'".

    Raises:
        ValidationError: a value is wrong or a key unknown; `recipe.load` adds file, line and key.
    """
    try:
        return TypeAdapter(variant).validate_python(value)
    except ValidationError as error:
        details = [_variant_error(variant, key, item, owner) for item in error.errors()]
        raise ValidationError.from_exception_data(variant.__name__, details) from None


def _variant_error(variant: type, key: str, error: Any, owner: str) -> InitErrorDetails:
    """Return an error with the section's key; that of an unknown key lists the variant's keys."""
    error_type: Any = error["type"]
    message = error["msg"].removeprefix("Value error, ")
    if error_type == "unexpected_keyword_argument":
        name = str(error["loc"][-1])
        hint = did_you_mean(name, field_names(variant))
        message = f"{owner} has no option {name!r}; {hint}"
    if error_type in ("unexpected_keyword_argument", "value_error"):
        error_type = PydanticCustomError("value_error", message)
    details = InitErrorDetails(type=error_type, loc=(key, *error["loc"]), input=error["input"])
    if "ctx" in error:
        details["ctx"] = error["ctx"]
    return details
