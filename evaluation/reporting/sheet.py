"""CSV sheets that people fill in; their entries are never overwritten."""

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
"""Maximum characters of a column's name, which messages and tables repeat."""


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
        raise DataError(f"{path}: expected a column 'id'; the file is empty")
    return sheet


def _delimiter(text: str) -> str:
    """Return the separator of the cells, by the first line: a column's name has no semicolon."""
    header = text.split("\n", 1)[0]
    return ";" if ";" in header and "," not in header else ","


def _add(sheet: Sheet, row: list[str], where: str, line: int) -> None:
    """Add the cells of the next line."""
    if not sheet.columns:
        if "id" not in row or len(set(row)) < len(row):
            raise DataError(
                f"{where}: expected a column 'id', and each column once; the columns are"
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
    path: Path, filled: Sequence[str], rows: Iterable[Sequence[str]], entered: Sequence[str]
) -> bool:
    """Write a sheet, keeping entries of an existing one; return whether the file has changed.

    Args:
        path: the sheet.
        filled: columns that this command fills; the first is `id`.
        rows: their cells.
        entered: columns for people.

    Raises:
        UsageError: the file is not such a sheet, or there are entries for a row whose text has
            changed.
        DataError: the file is damaged.
    """
    with lock.hold(path):
        existing = read(path) if path.exists() else Sheet([*filled, *entered], [], [])
        missing = [name for name in filled if name not in existing.columns]
        if missing:
            raise UsageError(
                f"{path} exists and is not such a sheet: it has no column {missing[0]!r}; choose"
                " another file"
            )
        columns = [*existing.columns, *(name for name in entered if name not in existing.columns)]
        new_rows = [dict(zip(filled, row, strict=True)) for row in rows]
        merged = _merged(path, existing, new_rows, filled)
        if path.exists() and columns == existing.columns and merged == existing.rows:
            return False
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        for row in merged:
            writer.writerow({name: cells.for_csv(cell) for name, cell in row.items()})
        write_text(path, text.getvalue())
        return True


def _merged(
    path: Path, existing: Sheet, rows: list[dict[str, str]], filled: Sequence[str]
) -> list[dict[str, str]]:
    """Return the new rows, with existing entries for them."""
    new_rows = {row["id"]: row for row in rows}
    merged = dict(new_rows)
    for row, line in zip(existing.rows, existing.lines, strict=True):
        new = new_rows.get(row["id"])
        if new is not None and all(_plain(new[name]) == _plain(row[name]) for name in filled):
            merged[row["id"]] = row
        elif any(text.strip() for name, text in row.items() if name not in filled):
            raise UsageError(
                f"{path}, line {line}: the entries for {row['id']!r} belong to another text;"
                " nothing was written: choose another file, or move the sheet away"
            )
    return list(merged.values())


def _plain(text: str) -> str:
    """Return a text with uniform line breaks, which spreadsheets change."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
