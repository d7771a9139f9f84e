"""CSV sheets that people fill in: written once, read back, entries never overwritten."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.reporting import cells
from galen import lock
from galen.atomic import write_text
from galen.errors import DataError, UsageError

_LONGEST_NAME = 100
"""Characters of a column's name: messages and tables repeat it."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Columns and rows, each row as column to cell."""

    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]
    """The line that each row begins in."""


def read(path: Path) -> Sheet:
    """Read a sheet; its first column is `id`.

    Cells are between commas, or between semicolons, as Excel saves them where the comma is the
    decimal mark. Cells missing at a row's end are empty; rows without any cell are left out.

    Raises:
        DataError: it cannot be read, has no column `id`, or a row is damaged; names file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text; save the sheet as CSV in UTF-8"
        ) from None
    sheet = Sheet([], [], [])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    line = 1
    try:
        for row in reader:
            _add(sheet, row, f"{path}, line {line}", line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}; is a quote not closed?") from None
    if not sheet.columns:
        raise DataError(f"{path}: a column 'id' is wanted; the file is empty")
    return sheet


def _delimiter(text: str) -> str:
    """Return the separator of the cells, by the first line: a column's name has no semicolon."""
    header = text.split("\n", 1)[0]
    return ";" if ";" in header and "," not in header else ","


def _add(sheet: Sheet, row: list[str], where: str, line: int) -> None:
    """Take the cells of the next line."""
    if not sheet.columns:
        if "id" not in row or len(set(row)) < len(row):
            raise DataError(
                f"{where}: a column 'id' is wanted, and each column once; the columns are"
                f" {', '.join(row)[:80]}"
            )
        if longest := [name for name in row if len(name) > _LONGEST_NAME]:
            raise DataError(
                f"{where}: the name of a column has {len(longest[0])} characters, at most"
                f" {_LONGEST_NAME} are read"
            )
        sheet.columns.extend(row)
    elif any(row):
        if any(row[len(sheet.columns) :]):
            raise DataError(
                f"{where}: {len(row)} cells, but there are {len(sheet.columns)} columns"
            )
        padding = [""] * len(sheet.columns)
        texts = [cells.from_csv(cell) for cell in row]
        sheet.rows.append(dict(zip(sheet.columns, texts + padding, strict=False)))
        sheet.lines.append(line)


def write(
    path: Path, given: Sequence[str], rows: Iterable[Sequence[str]], entered: Sequence[str]
) -> bool:
    """Write a sheet, keeping entries of an existing one; return whether the file has changed.

    Args:
        path: the sheet.
        given: columns that this command fills, the first of them `id`.
        rows: their cells.
        entered: columns for people.

    Raises:
        UsageError: the file is something else, or somebody has entered something for a row that is
            another now.
        DataError: the file is damaged.
    """
    with lock.hold(path):
        there = read(path) if path.exists() else Sheet([*given, *entered], [], [])
        lacking = [name for name in given if name not in there.columns]
        if lacking:
            raise UsageError(
                f"{path} is there and is no such sheet: it has no column {lacking[0]!r}; choose"
                " another file"
            )
        columns = [*there.columns, *(name for name in entered if name not in there.columns)]
        merged = _merged(path, there, [dict(zip(given, row, strict=True)) for row in rows], given)
        if path.exists() and columns == there.columns and merged == there.rows:
            return False
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(
            {name: cells.for_csv(cell) for name, cell in row.items()} for row in merged
        )
        write_text(path, text.getvalue())
        return True


def _merged(
    path: Path, there: Sheet, rows: list[dict[str, str]], given: Sequence[str]
) -> list[dict[str, str]]:
    """Return the new rows, with what was entered for them."""
    wanted = {row["id"]: row for row in rows}
    found = {row["id"]: row for row in rows}
    for row, line in zip(there.rows, there.lines, strict=True):
        new = wanted.get(row["id"])
        same = new is not None and all(_plain(new[name]) == _plain(row[name]) for name in given)
        if same:
            found[row["id"]] = row
        elif any(text.strip() for name, text in row.items() if name not in given):
            raise UsageError(
                f"{path}, line {line}: what is entered for {row['id']!r} is about another text than"
                " this command has now; nothing was written: choose another file, or move the"
                " sheet away"
            )
    return list(found.values())


def _plain(text: str) -> str:
    """Return a text without what spreadsheets change when they save: the kind of line breaks."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
