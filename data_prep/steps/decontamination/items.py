"""Evaluation items as fields of text.

From any JSONL with a question, options, a context or other named fields.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from data_prep.files.find import find_files
from galen.errors import DataError


@dataclass(frozen=True, slots=True)
class ItemField:
    """The text of one field of one item."""

    file: str
    """Name of the JSONL file."""

    item: str
    """The item's `id`, or else the number of its line, from 1."""

    field: str
    """Key, with the option's letter or index after a dot."""

    text: str


def read_items(paths: Sequence[str], fields: Sequence[str]) -> Iterator[ItemField]:
    """Yield the fields of all items of JSONL files, folders or globs.

    An option or passage of a list is a field of its own.

    Raises:
        DataError: a path holds no file, a line is no JSON object, or a file has none of the fields
            at all.
    """
    for path in item_files(paths):
        has_items = False
        for item in _fields_of(path, fields):
            has_items = True
            yield item
        if not has_items:
            raise DataError(
                f"{path} has no text in any of the fields {', '.join(fields)}; name its fields in"
                " decontaminate.fields"
            )


def item_files(paths: Sequence[str]) -> list[Path]:
    """Return the JSONL files that paths, folders or globs name.

    Raises:
        DataError: one of them names none.
    """
    try:
        return list(chain.from_iterable(find_files(path, (".jsonl", ".json")) for path in paths))
    except DataError as error:
        raise DataError(
            f"step decontaminate, key eval_datasets: {error}; put the evaluation items"
            " there, one JSON object a line"
        ) from None


def _fields_of(path: Path, fields: Sequence[str]) -> Iterator[ItemField]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error}); one item a line is needed"
                ) from None
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}, line {number}: an item must be an object with fields, this is a"
                    f" {type(record).__name__}"
                )
            item = str(record.get("id", number))
            for field in fields:
                for name, text in _texts(field, record.get(field)):
                    if text.strip():
                        yield ItemField(path.name, item, name, text)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(f"{name}.{number}", inner)
