"""Tables in which a little memory stands for many gigabytes of text."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from data_prep.files.json_records import parse
from data_prep.tokenization.input_blocks import FileRange, LongLine, read_blocks
from galen.errors import DataError

SIZE = 1 << 16
VALUE = "z" * 10_000
ROWS = 20_000


def repeated():
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * ROWS, pyarrow.int32()), [VALUE])


def run():
    return pyarrow.RunEndEncodedArray.from_arrays(
        pyarrow.array([ROWS], pyarrow.int32()), pyarrow.array([VALUE])
    )


def views():
    one = pyarrow.array([VALUE], pyarrow.string_view()).buffers()
    return pyarrow.Array.from_buffers(
        pyarrow.string_view(), ROWS, [None, pyarrow.py_buffer(bytes(one[1])[:16] * ROWS), one[2]]
    )


def written(path, column, **options):
    table = pyarrow.table({"text": column, "id": np.arange(len(column))})
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, **options)
    else:
        with (
            pyarrow.OSFile(str(path), "wb") as file,
            pyarrow.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    return path


@pytest.mark.parametrize(
    ("name", "column", "options"),
    [
        ("a.parquet", repeated, {}),
        ("a.parquet", repeated, {"store_schema": False}),
        ("a.arrow", repeated, {}),
        ("a.arrow", run, {}),
        ("a.arrow", views, {}),
    ],
)
def test_repeated_text_comes_in_small_pieces(name, column, options, tmp_path):
    """200 MB of text."""
    path = written(tmp_path / name, column(), **options)
    assert path.stat().st_size < 2_000_000
    rows, before = 0, pyarrow.total_allocated_bytes()
    for block in read_blocks([FileRange(path)], SIZE, ["text"]):
        assert block.data.num_rows * len(VALUE) <= SIZE
        assert pyarrow.total_allocated_bytes() - before < 20_000_000
        assert block.start == rows
        rows = block.end
        if rows < 20:
            assert parse(block.data, ["text"]).fields == [[VALUE] * block.data.num_rows]
    assert rows == ROWS
    assert (
        sum(
            block.end - block.start
            for block in read_blocks([FileRange(path)], SIZE, ["text"], start_offset=ROWS - 8)
        )
        == 8
    )


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_row_that_is_too_long(name, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.tokenization.input_blocks.LONGEST_LINE", 5000)
    path = written(tmp_path / name, pyarrow.array(["one", "x" * 20_000, None, "two"]))
    found = [
        (block.start, block.end, block.data)
        for block in read_blocks([FileRange(path)], 1 << 12, ["text"])
    ]
    assert [data for _, _, data in found if isinstance(data, LongLine)] == [LongLine(20_000)]
    texts = [
        text
        for _, _, data in found
        if not isinstance(data, LongLine)
        for text in parse(data, ["text"]).fields[0]
    ]
    assert texts == ["one", "two"]
    assert [start for start, _, _ in found[:3]] == [0, 1, 2]


def test_repeated_text_inside_of_lists(tmp_path):
    inner = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 4, pyarrow.int32()), [VALUE])
    path = written(tmp_path / "a.arrow", pyarrow.ListArray.from_arrays([0, 2, 4], inner))
    with pytest.raises(
        DataError, match=r"the column 'text' is list<.*dictionary.*write it without this encoding"
    ):
        list(read_blocks([FileRange(path)], SIZE, ["text"]))


def test_texts_of_all_kinds(tmp_path):
    texts = ["", "äöü", None, "x" * 300]
    for kind in (
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
    ):
        column = (
            pyarrow.array(texts, kind)
            if not pyarrow.types.is_dictionary(kind)
            else pyarrow.array(texts).dictionary_encode()
        )
        for skip in range(3):
            path = written(tmp_path / "a.arrow", column.slice(skip))
            found = [
                parse(block.data, ["text"]).fields[0]
                for block in read_blocks([FileRange(path)], 4, ["text"])
            ]
            assert [text for part in found for text in part] == [
                text for text in texts[skip:] if text is not None
            ]
    stream = io.BytesIO()
    with pyarrow.ipc.new_stream(stream, pyarrow.schema([("text", pyarrow.string())])):
        pass
    (tmp_path / "b.arrow").write_bytes(stream.getvalue())
    assert list(read_blocks([FileRange(tmp_path / "b.arrow")], SIZE, ["text"])) == []
