"""Metadata of records from outside, with the types that the steps after the readers rely on."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

ORIGIN = "origin_"


def with_types(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata in which each field that a step reads has the expected type.

    A value that cannot be converted moves to `origin_<name>`.
    """
    result: dict[str, Any] = {}
    for key, value in known.items():
        convert = _CONVERTERS.get(key)
        if convert is None or value is None:
            result[key] = [] if convert is _words else value
            continue
        try:
            result[key] = convert(value)
        except (TypeError, ValueError):
            result[ORIGIN + key] = value
    for key in ("title", "copyright"):
        result[key] = result.get(key) or ""
    result["retracted"] = bool(result.get("retracted"))
    return result


def _word(value: Any) -> str:
    """Return a text, or a number as one."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TypeError


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _day(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) and value == value else _word(value)


def _words(value: Any) -> list[str]:
    if value in ("", []):
        return []
    return (
        [_word(part) for part in value if part is not None]
        if isinstance(value, list)
        else [_word(value)]
    )


def _headings(value: Any) -> list[dict[str, Any]]:
    for heading in value:
        if not isinstance(heading, dict) or not isinstance(heading.get("name"), str):
            raise TypeError
    return list(value)


def _fractions(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise TypeError
    return {name: float(fraction) for name, fraction in value.items()}


def _count(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise TypeError
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "title": _text,
    "copyright": _text,
    "language": _words,
    "publication_types": _words,
    "date": _day,
    "retracted": bool,
    "mesh": _headings,
    "pmid": _word,
    "pmcid": _word,
    "doi": _word,
    "text_language": _text,
    "text_languages": _fractions,
    "citation_count": _count,
    "filter_reason": _text,
}
