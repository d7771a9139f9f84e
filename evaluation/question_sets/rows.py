"""Raw rows of question sets: JSON Lines, JSON, CSV, TSV, Parquet, Hugging Face hub."""

import codecs
import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from evaluation.question_sets import jsonl
from galen.errors import DataError, GalenError, UsageError, one_line

HUB = "hub:"
"""Beginning of a source on the hub: `hub:OWNER/NAME[:CONFIGURATION]:SPLIT`."""
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
TABLE_SUFFIXES = (*SUFFIXES, ".tsv")
"""Suffixes of files whose columns have names."""
_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")


@dataclass(frozen=True, slots=True)
class Table:
    """CSV and TSV files whose columns have names."""

    columns: tuple[str, ...] | None = None
    """Names of the columns of files without a header; None: the first line has them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record and its location."""

    record: dict[str, Any]
    where: str
    """File and line, for messages."""
    file: str
    """Name of the file without its suffixes, or the hub's configuration.

    Some sets keep subject or language there.
    """
    number: int
    """Place in the file, from 1 on."""
    key: str = ""
    """The name of the record where a JSON file is an object of records."""
    folder: str = ""
    """Name of the file's folder; empty for a data set on the hub."""

    @property
    def id(self) -> str:
        """An id for records that have none: file and place."""
        return f"{self.file}:{self.number}"

    def text(self, key: str) -> str:
        """Return the text under a key.

        Raises:
            DataError: it is missing, blank, or no text.
        """
        return jsonl.text(self.record, key, self.where)

    def optional_text(self, key: str) -> str:
        """Return the text under a key, or an empty string when there is none."""
        value = self.record.get(key)
        return value.strip() if isinstance(value, str) else ""

    def identifier(self, key: str) -> str:
        """Return the id under a key, a text or an integer; empty when there is none."""
        value = self.record.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.optional_text(key)

    def needed_identifier(self, key: str) -> str:
        """Return the id under a key.

        Raises:
            DataError: it is missing, or neither a text nor an integer.
        """
        return jsonl.identifier(self.record, key, self.where)

    def wrong(self, message: str) -> DataError:
        """Return an error that names the place."""
        return DataError(f"{self.where}: {' '.join(message.split())[:400]}")


def read(source: str | Path, table: Table | None = None) -> Iterator[Row]:
    """Yield the rows of a file, of all files of a folder by name, or of a data set on the hub.

    Args:
        source: what to read.
        table: the columns of CSV and TSV files; None: CSV files have MMLU's, and TSV is not read.

    Raises:
        DataError: nothing is there, or a file is damaged.
        UsageError: the hub is asked for and `datasets` is not installed.
    """
    if str(source).startswith(HUB):
        yield from _hub(str(source))
        return
    for path in files(source, table):
        try:
            for number, (where, key, record) in enumerate(_records(path, table), start=1):
                yield Row(
                    record, where, path.name.split(".")[0], number, key, path.resolve().parent.name
                )
        except GalenError:
            raise
        # csv and pyarrow raise their own; other encodings and structures raise any
        except Exception as error:
            reason = one_line(error)
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            raise DataError(
                f"{path} cannot be read as a {path.suffix} file of questions: {reason}"
            ) from None


def files(source: str | Path, table: Table | None = None) -> list[Path]:
    """Return the files that `read` reads: none for a data set on the hub.

    Raises:
        DataError: there is nothing to read.
    """
    if str(source).startswith(HUB):
        return []
    path = Path(source)
    suffixes = SUFFIXES if table is None else TABLE_SUFFIXES
    if path.is_dir():
        found = sorted(
            file
            for file in path.iterdir()
            if file.name.endswith(suffixes) and not file.name.startswith(".")
        )
        if not found:
            raise DataError(f"{path} holds no file of questions ({', '.join(suffixes)})")
        return found
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if not path.name.endswith(suffixes):
        raise DataError(f"{path} is not a file of questions; known endings: {', '.join(suffixes)}")
    return [path]


def _records(path: Path, table: Table | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield place, key and record of each record of a file."""
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        for where, record in jsonl.records(path):
            yield where, "", record
    elif path.suffix in (".csv", ".tsv"):
        yield from _mmlu_csv(path) if table is None else _table(path, table)
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        for number, record in enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1):
            yield f"{path}, row {number}", "", record
    else:
        yield from _json(path)


def _mmlu_csv(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the records of a CSV file without a header, as MMLU's.

    Columns: question, four options, the right letter.
    """
    for where, cells in _cells(path, ",", len(_MMLU_COLUMNS)):
        if len(cells) != len(_MMLU_COLUMNS):
            raise DataError(
                f"{where}: six columns are wanted ({', '.join(_MMLU_COLUMNS)}), not {len(cells)}"
            )
        yield where, "", {"question": cells[0], "choices": cells[1:5], "answer": cells[5]}


def _table(path: Path, table: Table) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the records of a CSV or TSV file by the names of its columns; skips blank lines."""
    names = list(table.columns or ())
    lines = _cells(path, "\t" if path.suffix == ".tsv" else ",", len(names) or None)
    if not names:
        where, names = next(lines, (str(path), []))
        if not names:
            raise DataError(f"{where}: the first line must name the columns; the file is empty")
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise DataError(f"{where}: two columns have the name {double!r}")
    for where, cells in lines:
        if not cells:
            continue
        if len(cells) != len(names):
            raise DataError(
                f"{where}: {len(names)} columns are wanted ({', '.join(names):.200}), not"
                f" {len(cells)}"
            )
        yield where, "", dict(zip(names, cells, strict=True))


def _cells(path: Path, delimiter: str, width: int | None) -> Iterator[tuple[str, list[str]]]:
    """Yield position and cells of each record of a CSV file.

    Args:
        path: the file.
        delimiter: what separates cells.
        width: cells of a record; None: as many as the first has.

    Raises:
        DataError: a quote is not closed.
    """
    end = "\0end"  # a line of our own behind the last: where it is no record, a quote is still open
    with path.open("rb") as file:
        reader = csv.reader(itertools.chain(_csv_lines(file), [end]), delimiter=delimiter)
        line = 1
        try:
            for cells in reader:
                where = f"{path}, line {line}"
                if cells == [end]:
                    return
                width = width or len(cells)
                spans_lines = reader.line_num > line
                if (spans_lines and len(cells) != width) or (cells and cells[-1].endswith(end)):
                    raise DataError(
                        f"{where}: a quote is opened here and not closed, or not where it should be"
                    )
                yield where, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {error}; is a quote not closed?") from None


def _csv_lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a CSV file.

    Raises:
        ValueError: one is not text, or is longer than `jsonl.MAX_LINE`.
    """
    number = 0
    while line := file.readline(jsonl.MAX_LINE + 1):
        number += 1
        if number == 1:  # others are part of a cell: two of MMLU's questions have one
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text or len(line) > jsonl.MAX_LINE:
            raise ValueError(
                f"line {number} is not UTF-8 text, or too long; save the file as UTF-8"
            )
        yield text


def _json(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the records of a JSON array, of an object of records, or of HEAD-QA's object of exams.

    JSON Lines are read too.
    """
    try:
        tree = jsonl.tree(path)
    except DataError:
        if _is_json_lines(path):  # under the name .json, as MedMCQA's files are
            for where, record in jsonl.records(path):
                yield where, "", record
            return
        raise
    if isinstance(tree, dict) and isinstance(tree.get("exams"), dict):
        common = {"language": tree.get("language")}
        tree = [
            {**common, **record}
            for name, exam in tree["exams"].items()
            for record in _exam(name, exam)
        ]
    if not isinstance(tree, dict | list):
        raise DataError(
            f"{path}: a list or an object of records is wanted, not {jsonl.shown(tree)}"
        )
    pairs = tree.items() if isinstance(tree, dict) else (("", record) for record in tree)
    for number, (key, record) in enumerate(pairs, start=1):
        where = f"{path}, record {' '.join(key.split())[:60] or number}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: a record must be a JSON object, not {jsonl.shown(record)}")
        yield where, key, record


def _is_json_lines(path: Path) -> bool:
    content = path.read_bytes()
    return content.lstrip()[:1] == b"{" and b"\n{" in content


def _exam(name: str, exam: Any) -> Iterator[dict[str, Any]]:
    """Yield the records of one of HEAD-QA's exams."""
    if not isinstance(exam, dict) or not isinstance(exam.get("data"), list):
        raise ValueError(f"exam {name!r} holds no list 'data'")
    for number, item in enumerate(exam["data"], start=1):
        if not isinstance(item, dict):
            raise ValueError(
                f"record {number} of the exam {name!r} must be an object, not {jsonl.shown(item)}"
            )
        yield {**exam, **item}


def _hub(source: str) -> Iterator[Row]:
    parts = source.removeprefix(HUB).split(":")
    if len(parts) not in (2, 3):
        raise UsageError(
            f"{source}: write hub:OWNER/NAME:SPLIT or hub:OWNER/NAME:CONFIGURATION:SPLIT"
        )
    try:
        import datasets
    except ImportError:
        raise UsageError(
            f"{source}: reading from the hub needs the package datasets: pip install 'datasets>=4'"
        ) from None
    # it runs Python files of a data set's repository, or asks whether to
    if int(datasets.__version__.split(".")[0]) < 4:
        raise UsageError(
            f"{source}: datasets {datasets.__version__} may run code of the hub: pip install"
            " 'datasets>=4'"
        )
    name, *configuration, split = parts
    try:
        table = datasets.load_dataset(name, *configuration, split=split)
    except (
        Exception
    ) as error:  # the library raises many kinds, of its own, of the network, of the file system
        raise DataError(f"{source} cannot be read: {one_line(error)}") from error
    for number, record in enumerate(table, start=1):
        yield Row(
            dict(record),
            f"{source}, row {number}",
            configuration[0] if configuration else split,
            number,
        )
