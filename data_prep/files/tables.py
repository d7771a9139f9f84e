"""Parquet and Arrow files in pieces of bounded size, even if a small file expands to much text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from galen.errors import DataError

_ROWS = 1000


def read_table(
    path: Path, size: int, longest: int, keys: Sequence[str]
) -> Iterator[tuple[int, Any, float]]:
    """Yield the rows of a Parquet or Arrow file, about `size` bytes of text at a time.

    Only the columns `keys` are read. Each piece comes as the number of its rows, a record batch,
    and the share of the file that is then read (0 where that is not known). A row of more than
    `longest` bytes is replaced by their number.

    Raises:
        DataError: the file is damaged or has no such column.
    """
    import pyarrow

    row = 0
    try:
        batches, total = (
            _open_parquet(path, size, keys)
            if path.suffix.lower() == ".parquet"
            else _open_arrow(path, keys)
        )
        for batch in batches:
            first = 0
            sizes = np.cumsum(_row_bytes(batch, path))
            while first < batch.num_rows:
                before = sizes[first - 1] if first else 0
                end = max(int(np.searchsorted(sizes, before + size, "right")), first + 1)
                length = int(sizes[end - 1] - before)
                row += end - first
                too_long = end - first == 1 and length > longest
                data = length if too_long else _decoded(batch.slice(first, end - first))
                yield end - first, data, row / total if total else 0
                first = end
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a complete {path.suffix[1:]} file: {error}") from None


def _row_bytes(batch: Any, path: Path) -> Any:
    """Return how much text each row holds once it is decoded, in bytes.

    Nothing is decoded for that.
    """
    sizes = np.zeros(batch.num_rows)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if (unknown := _bytes_of(column)) is None:
            raise DataError(
                f"{path}: the column {name!r} is {column.type}, which could stand for any amount of"
                " text; write it plain"
            )
        sizes += unknown
    return sizes


def _bytes_of(column: Any) -> Any:
    """Return the bytes of each value of a column.

    None where repeated values lie inside of lists or the like.
    """
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        values = _bytes_of(column.dictionary)
        return None if values is None else _taken(values, column.indices)
    if types.is_run_end_encoded(kind):
        values = _bytes_of(column.values)
        return (
            None
            if values is None
            else np.repeat(values, np.diff(column.run_ends.to_numpy(), prepend=0))
        )
    if str(kind) in ("string_view", "binary_view"):
        return np.frombuffer(column.buffers()[1], np.int32)[column.offset * 4 :][
            : len(column) * 4 : 4
        ].astype(float)
    if (
        types.is_string(kind)
        or types.is_binary(kind)
        or types.is_large_string(kind)
        or types.is_large_binary(kind)
    ):
        width = np.int64 if types.is_large_string(kind) or types.is_large_binary(kind) else np.int32
        offsets = np.frombuffer(column.buffers()[1] or b"\0" * 8, width)[column.offset :][
            : len(column) + 1
        ]
        return np.diff(offsets).astype(float)
    if _repeats(kind):
        return None
    return np.full(len(column), column.nbytes / max(len(column), 1))


def _taken(values: Any, indices: Any) -> Any:
    """Return the sizes of the dictionary's values that occur in the rows, 0 for none.

    Raises:
        ArrowInvalid: an index is damaged, at which Arrow itself does not look in Parquet files.
    """
    import pyarrow

    sizes = np.zeros(len(indices))
    known = np.asarray(indices.is_valid())
    places = indices.drop_null().to_numpy(zero_copy_only=False)
    if len(places) and not 0 <= places.min() <= places.max() < len(values):
        raise pyarrow.ArrowInvalid("an index lies outside of its dictionary")
    sizes[known] = values[places]
    return sizes


def _repeats(kind: Any) -> bool:
    """Say whether values of a type can represent many others inside of them."""
    from pyarrow import types

    if (
        types.is_dictionary(kind)
        or types.is_run_end_encoded(kind)
        or "view" in str(kind).partition("<")[0]
    ):
        return True
    return any(_repeats(kind.field(number).type) for number in range(kind.num_fields))


def _decoded(batch: Any) -> Any:
    """Return a record batch of plain columns."""
    import pyarrow
    from pyarrow import compute, types

    columns = []
    for column in batch.columns:
        while types.is_dictionary(column.type) or types.is_run_end_encoded(column.type):
            column = (
                column.dictionary_decode()
                if types.is_dictionary(column.type)
                else compute.run_end_decode(column)
            )
        columns.append(column)
    return pyarrow.record_batch(columns, batch.schema.names)


def _open_parquet(path: Path, size: int, keys: Sequence[str]) -> tuple[Iterator[Any], int]:
    """Open a Parquet file; dictionary-encoded texts stay so until they are divided."""
    from pyarrow import parquet, types

    file = parquet.ParquetFile(path, pre_buffer=False)
    _check_columns(path, file.schema_arrow.names, keys)
    texts = [
        field.name
        for field in file.schema_arrow
        if types.is_string(field.type) or types.is_binary(field.type)
    ]
    file = parquet.ParquetFile(path, pre_buffer=False, read_dictionary=texts)

    def batches() -> Iterator[Any]:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            rows = group.num_rows * size // max(group.total_byte_size, 1)
            yield from file.iter_batches(
                batch_size=min(max(rows, 1), _ROWS),
                row_groups=[number],
                columns=list(keys),
                use_threads=False,
            )

    return batches(), file.metadata.num_rows


def _open_arrow(path: Path, keys: Sequence[str]) -> tuple[Iterator[Any], int]:
    """Open Arrow's file format, or its stream format, which Hugging Face data sets are saved in."""
    import pyarrow

    source = pyarrow.memory_map(str(path))
    reader: Any
    if source.read(6) == b"ARROW1":
        reader = pyarrow.ipc.open_file(source)
        batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
    else:
        source.seek(0)
        reader = batches = pyarrow.ipc.open_stream(source)
    _check_columns(path, reader.schema.names, keys)
    return (_whole(batch.select(list(keys))) for batch in batches), 0


def _whole(batch: Any) -> Any:
    """Return a record batch in which every text lies within its memory, which Arrow does not check.

    Raises:
        pyarrow.ArrowInvalid: it is damaged.
    """
    import pyarrow

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            # text that is not UTF-8 is reported for the record; checked after the places of the
            # texts
            if "UTF8" not in str(error) or column.type not in (
                pyarrow.string(),
                pyarrow.large_string(),
            ):
                raise
    return batch


def _check_columns(path: Path, names: Sequence[str], keys: Sequence[str]) -> None:
    for key in keys:
        if key not in names:
            raise DataError(
                f"{path}: no column {key!r} (it has: {', '.join(names)}); select one with"
                " --json-keys"
            )
