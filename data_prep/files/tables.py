"""Parquet and Arrow files in batches of bounded size, even if a small file expands to much text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from galen.errors import DataError

_ROWS = 1000


def read_table(
    path: Path, size: int, max_row_bytes: int, keys: Sequence[str]
) -> Iterator[tuple[int, Any, float]]:
    """Yield the rows of a Parquet or Arrow file, about `size` bytes of text at a time.

    Only the columns `keys` are read.

    Yields:
        The number of rows, a record batch of them, and the fraction of the file that has been read
        (0 if unknown). A row of more than `max_row_bytes` is replaced by its size.

    Raises:
        DataError: the file is damaged or lacks a column.
    """
    import pyarrow

    row = 0
    try:
        if path.suffix.lower() == ".parquet":
            batches, total = _open_parquet(path, size, keys)
        else:
            batches, total = _open_arrow(path, keys)
        for batch in batches:
            first = 0
            sizes = np.cumsum(_row_bytes(batch, path))
            while first < batch.num_rows:
                before = sizes[first - 1] if first else 0
                end = max(int(np.searchsorted(sizes, before + size, "right")), first + 1)
                length = int(sizes[end - 1] - before)
                row += end - first
                too_long = end - first == 1 and length > max_row_bytes
                data = length if too_long else _decoded(batch.slice(first, end - first))
                yield end - first, data, row / total if total else 0
                first = end
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a complete {path.suffix[1:]} file: {error}") from None


def _row_bytes(batch: Any, path: Path) -> Any:
    """Return the size of each row's text when it is decoded, in bytes, without decoding it."""
    sizes = np.zeros(batch.num_rows)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        column_sizes = _bytes_of(column)
        if column_sizes is None:
            raise DataError(
                f"{path}: the column {name!r} is {column.type}, which may expand to any amount of"
                " text; write it without this encoding"
            )
        sizes += column_sizes
    return sizes


def _bytes_of(column: Any) -> Any:
    """Return the bytes of each value of a column.

    None for nested columns that contain repeated values.
    """
    from pyarrow import types

    arrow_type = column.type
    if types.is_dictionary(arrow_type):
        values = _bytes_of(column.dictionary)
        return None if values is None else _lookup(values, column.indices)
    if types.is_run_end_encoded(arrow_type):
        values = _bytes_of(column.values)
        if values is None:
            return None
        return np.repeat(values, np.diff(column.run_ends.to_numpy(), prepend=0))
    if str(arrow_type) in ("string_view", "binary_view"):
        views = np.frombuffer(column.buffers()[1], np.int32)[column.offset * 4 :]
        return views[: len(column) * 4 : 4].astype(float)
    is_large = types.is_large_string(arrow_type) or types.is_large_binary(arrow_type)
    if is_large or types.is_string(arrow_type) or types.is_binary(arrow_type):
        buffer = column.buffers()[1] or b"\0" * 8
        offsets = np.frombuffer(buffer, np.int64 if is_large else np.int32)[column.offset :]
        return np.diff(offsets[: len(column) + 1]).astype(float)
    if _repeats(arrow_type):
        return None
    return np.full(len(column), column.nbytes / max(len(column), 1))


def _lookup(values: Any, indices: Any) -> Any:
    """Return the size of each row's dictionary value, 0 for rows without a value.

    Raises:
        ArrowInvalid: an index is damaged, which Arrow itself does not check in Parquet files.
    """
    import pyarrow

    sizes = np.zeros(len(indices))
    is_valid = np.asarray(indices.is_valid())
    valid_indices = indices.drop_null().to_numpy(zero_copy_only=False)
    if len(valid_indices) and not 0 <= valid_indices.min() <= valid_indices.max() < len(values):
        raise pyarrow.ArrowInvalid("an index is outside its dictionary")
    sizes[is_valid] = values[valid_indices]
    return sizes


def _repeats(arrow_type: Any) -> bool:
    """Return whether values of a type may share the values inside them."""
    from pyarrow import types

    if types.is_dictionary(arrow_type) or types.is_run_end_encoded(arrow_type):
        return True
    if "view" in str(arrow_type).partition("<")[0]:
        return True
    fields = (arrow_type.field(number) for number in range(arrow_type.num_fields))
    return any(_repeats(field.type) for field in fields)


def _decoded(batch: Any) -> Any:
    """Return a record batch of plain columns."""
    import pyarrow
    from pyarrow import compute, types

    columns = []
    for column in batch.columns:
        while types.is_dictionary(column.type) or types.is_run_end_encoded(column.type):
            if types.is_dictionary(column.type):
                column = column.dictionary_decode()
            else:
                column = compute.run_end_decode(column)
        columns.append(column)
    return pyarrow.record_batch(columns, batch.schema.names)


def _open_parquet(path: Path, size: int, keys: Sequence[str]) -> tuple[Iterator[Any], int]:
    """Open a Parquet file; dictionary-encoded texts are decoded only after batches are split."""
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
    """Open Arrow's file format, or its stream format, the one of Hugging Face data sets."""
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
    return (_validated(batch.select(list(keys))) for batch in batches), 0


def _validated(batch: Any) -> Any:
    """Return a record batch after checking that every text lies within its memory.

    Arrow itself does not check that.

    Raises:
        pyarrow.ArrowInvalid: it is damaged.
    """
    import pyarrow

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            # text that is not UTF-8 is reported with its record; it is checked after the offsets
            is_text = column.type in (pyarrow.string(), pyarrow.large_string())
            if "UTF8" not in str(error) or not is_text:
                raise
    return batch


def _check_columns(path: Path, names: Sequence[str], keys: Sequence[str]) -> None:
    for key in keys:
        if key not in names:
            raise DataError(
                f"{path}: no column {key!r} (it has: {', '.join(names)}); select one with"
                " --json-keys"
            )
