"""Records of a block: the requested fields of each line or row, or its error."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

ROLES = {
    "system": 0,
    "user": 1,
    "human": 1,
    "prompter": 1,
    "question": 1,
    "assistant": 2,
    "gpt": 2,
    "answer": 2,
}
"""Number of a role in the role file; only 2, the model's messages, contributes to the loss."""


@dataclass(slots=True)
class InvalidRecord:
    """A line or row that is not a usable record."""

    number: int
    """Line or row of the block, from 0."""

    reason: str
    """Category of the error, for counting."""

    detail: str
    """Description of the error."""


@dataclass(slots=True)
class Records:
    """The usable records of one block."""

    fields: list[list[Any]] = field(default_factory=list)
    """For each key, the values of all records."""

    numbers: list[int] = field(default_factory=list)
    """Line or row of the block of each record, from 0."""

    invalid: list[InvalidRecord] = field(default_factory=list)


class InvalidRecordError(Exception):
    """A line or row is not a usable record.

    Holds the category of the error, for counting, and a message.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


def parse(data: Any, keys: Sequence[str], chat: bool = False) -> Records:
    """Return the records of a block's data: lines of JSON as bytes, or an Arrow record batch.

    Empty lines are skipped.
    """
    if isinstance(data, bytes) and not chat and len(keys) == 1:
        return _parse_lines(data, keys[0])
    records = _lines(data) if isinstance(data, bytes) else rows(data, keys)
    return _parse(records, keys, _check_messages if chat else _check_text)


def _parse_lines(data: bytes, key: str) -> Records:
    """Parse lines with one key, faster than `_parse` as long as they are valid."""
    result = Records([[]])
    texts = result.fields[0]
    numbers = result.numbers
    loads = orjson.loads
    view = memoryview(data)  # lines are not copied
    end = -1
    nul = b"\\u0000" in data
    for number in range(data.count(b"\n") + 1):
        start = end + 1
        end = data.find(b"\n", end + 1)
        line = view[start : end if end >= 0 else None]
        try:
            text = loads(line)[key]
            # orjson rejects lone surrogates and unescaped NULs
            if type(text) is str and not (nul and "\0" in text):
                texts.append(text)
                numbers.append(number)
                continue
        except (ValueError, TypeError, KeyError, IndexError):
            pass
        copy = bytes(line)
        if copy.strip():
            other = _parse([(number, copy)], [key], _check_text)
            texts += other.fields[0]
            numbers += other.numbers
            result.invalid += other.invalid
    return result


def _parse(
    records: Iterable[tuple[int, Any]], keys: Sequence[str], check: Callable[[Any, str], Any]
) -> Records:
    result = Records([[] for _ in keys])
    columns = result.fields
    for number, record in records:
        try:
            if isinstance(record, bytes):
                record = load_line(record)
            values = [check(record, key) for key in keys]
        except InvalidRecordError as error:
            result.invalid.append(InvalidRecord(number, error.reason, error.detail))
            continue
        result.numbers.append(number)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return result


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(data.split(b"\n")) if line.strip())


def rows(batch: Any, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of an Arrow record batch with their numbers.

    Text that is not UTF-8 is returned as bytes.
    """
    columns = [_values(batch.column(key)) for key in keys]
    return (
        (number, dict(zip(keys, values, strict=True)))
        for number, values in enumerate(zip(*columns, strict=True))
    )


def _values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check that its text is UTF-8
        import pyarrow

        return [_text_or_bytes(value) for value in column.cast(pyarrow.large_binary()).to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def load_line(line: bytes) -> Any:
    """Return a line's JSON value.

    Extensions of Python's own parser (NaN, huge integers) are accepted too.
    """
    line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(line.decode())
        except UnicodeDecodeError as decode_error:
            raise InvalidRecordError(
                "not UTF-8", f"not UTF-8 text (byte {decode_error.start + 1} of the line)"
            ) from None
        except (ValueError, RecursionError):
            raise InvalidRecordError(
                "not JSON", f"not JSON ({error}); each line must be a complete record"
            ) from None


def _check_text(record: Any, key: str) -> str:
    text = _field(record, key)
    if isinstance(text, str):
        return _clean(text, key)
    if isinstance(text, bytes):
        try:
            return _clean(text.decode(), key)
        except UnicodeDecodeError:
            raise InvalidRecordError("not UTF-8", f"{key!r} is not UTF-8 text") from None
    raise InvalidRecordError("not text", f"{key!r} is not text but {type(text).__name__}")


def _check_messages(record: Any, key: str) -> list[dict[str, str]]:
    messages = _field(record, key)
    if not isinstance(messages, list) or not messages:
        raise InvalidRecordError(
            "not messages",
            f"{key!r} is not a list of messages but"
            f" {'empty' if messages == [] else type(messages).__name__}",
        )
    for message in messages:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(name), str) for name in ("role", "content")
        ):
            raise InvalidRecordError(
                "not messages", f"a message of {key!r} lacks a 'role' or 'content' that is text"
            )
        if message["role"] not in ROLES:
            raise InvalidRecordError(
                "unknown role",
                f"the role {message['role']!r} in {key!r} is none of {', '.join(ROLES)}",
            )
        _clean(message["content"], key)
    return messages


def _field(record: Any, key: str) -> Any:
    if not isinstance(record, dict):
        raise InvalidRecordError(
            "no object",
            f"a {type(record).__name__}, but each line must be an object with the key {key!r}",
        )
    if key not in record:
        raise InvalidRecordError(
            "no such key",
            f"no key {key!r} (it has: {', '.join(record)}); select one with --json-keys",
        )
    return record[key]


def _clean(text: str, key: str) -> str:
    if "\0" in text:
        raise InvalidRecordError("NUL", f"{key!r} holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRecordError(
                "lone surrogate", f"{key!r} holds a lone surrogate (character {error.start + 1})"
            ) from None
    return text
