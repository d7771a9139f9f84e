"""The help of a recipe: a line for each key with its default and documentation."""

import json
from typing import Any

from galen import recipe_schema
from galen.recipe_schema import Field
from galen.recipe_variants import Variants


def describe(recipe_class: type, indent: int = 2) -> str:
    """Return one line per key: name, default, documentation; sections are indented.

    Args:
        recipe_class: a recipe class or a section.
        indent: number of spaces before each line.
    """
    lines = []
    for name, field in recipe_schema.fields(recipe_class).items():
        sections = list(dict.fromkeys(recipe_schema.sections(field.annotation)))
        if not sections:
            lines.append(_line(indent, f"{name} [{_default(field)}]", field.documentation))
        elif len(sections) == 1:
            lines += _describe_section(name, field, sections[0], indent)
        else:
            lines += _describe_union(name, field, sections, indent)
    return "\n".join(lines)


def _line(indent: int, name: str, documentation: str) -> str:
    return f"{' ' * indent}{name}  {documentation}".rstrip()


def _default(field: Field) -> str:
    return "required" if field.required else json.dumps(field.default(), default=str)


def _describe_section(name: str, field: Field, section: type, indent: int) -> list[str]:
    is_optional_type = not isinstance(field.annotation, type)
    mark = " [required]" if field.required and is_optional_type else ""
    lines = [_line(indent, f"{name}{mark}:", field.documentation), describe(section, indent + 2)]
    for variants in field.marks:
        if isinstance(variants, Variants):
            lines += _describe_variants(variants, section, indent + 2)
    return lines


def _describe_union(name: str, field: Field, sections: list[type], indent: int) -> list[str]:
    """Return the lines of a section that is one of several classes, each named by its tag."""
    lines = [_line(indent, f"{name}:", field.documentation)]
    for section in sections:
        documentation = " ".join((section.__doc__ or "").split())
        lines.append(f"{' ' * (indent + 2)}{recipe_schema.tags(section)[0]}:  {documentation}")
        tag_name = recipe_schema.tag_name(section)
        for line in describe(section, indent + 4).splitlines():
            if not line.lstrip().startswith(f"{tag_name} ["):
                lines.append(line)
    return lines


def _describe_variants(variants: Variants, common: type, indent: int) -> list[str]:
    """Return the lines of the keys that variants have in addition to those of the common class.

    Each key is listed once, with the names of the variants that have it.
    """
    common_names = recipe_schema.field_names(common)
    owners: dict[str, list[str]] = {}
    for name, variant in variants.classes.items():
        for line in describe(variant, indent + 2).splitlines():
            if line.split()[0] not in common_names:
                owners.setdefault(line, []).append(name)
    lines: list[str] = []
    heading: Any = None
    for line, names in owners.items():
        if heading != names:
            heading = names
            lines.append(f"{' ' * indent}{', '.join(names)}:")
        lines.append(line)
    return lines
