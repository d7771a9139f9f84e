"""JSON Lines, plain or gzip-compressed, with errors that name file, line and key."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from galen.errors import DataError, one_line

MAX_LINE = 64 * 2**20
"""Bytes of the longest record; what is longer is no record, or made to fill the memory."""


def records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield for each line that is not blank its place ("FILE, line N") and its object.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object.
    """
    path = Path(path)
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}, line {number}: longer than {MAX_LINE >> 20} MiB")
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield f"{path}, line {number}", _object(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; give a file of records") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}, after line {number}: cannot be read: {error}") from None


def text(record: dict[str, Any], key: str, where: str) -> str:
    """Return the text under a key.

    Raises:
        DataError: it is missing, null, blank, or no text.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: key {key!r} must be a text, not {found(record, key)}")
    return value


def identifier(record: dict[str, Any], key: str, where: str) -> str:
    """Return the id under a key: a text, or an integer as text.

    Raises:
        DataError: it is missing or something else.
    """
    value = record.get(key)
    return (
        str(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else text(record, key, where)
    )


def tree(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: it cannot be read.
        DataError: it is not JSON.
    """
    try:
        return orjson.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {one_line(error)}") from None


def dump(record: dict[str, Any]) -> str:
    """Return a record as one line of JSON."""
    return orjson.dumps(record).decode()


def shown(value: Any) -> str:
    """Return a value as an error message shows it."""
    return "null" if value is None else f"{' '.join(repr(value).split()):.60}"


def found(record: dict[str, Any], key: str) -> str:
    """Return what an error message shows of a key: its value, or that it is missing."""
    return shown(record[key]) if key in record else "missing"


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: a record must be a JSON object, not {shown(record)}")
    return record
