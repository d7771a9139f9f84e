"""JSONL and Parquet records, guidelines, S2ORC: what comes out, and what of bad lines."""

import bz2
import decimal
import gzip
import json
import random
import tracemalloc
from functools import partial

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_prep.readers.guidelines import GuidelinesReader
from data_prep.readers.records import RecordsReader
from galen.errors import DataError
from tests.data_prep.material import read_raw

MEDICAL = {
    "text": "Le fer est bon.",
    "id": "a1",
    "url": "http://a.org",
    "language": "fr",
    "license": "CC-BY-4.0",
    "source": "mC4",
}


read = partial(read_raw, RecordsReader)


PACK = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.bz2": partial(bz2.compress, compresslevel=1),
    ".jsonl.zst": zstandard.compress,
}


@pytest.mark.parametrize("ending", PACK)
def test_jsonl(tmp_path, ending):
    lines = [
        json.dumps(MEDICAL),
        "",
        json.dumps({"text": " "}),
        json.dumps({"text": "Second.", "meta": {"title": "T", "source": "web"}}),
    ]
    path = tmp_path / f"part{ending}"
    path.write_bytes(PACK[ending]("\n".join(lines).encode()))
    (first, second), bad, stats = read(path)
    assert bad == []
    assert stats == {"total": 3, "dropped_no text": 1}
    assert first.text == MEDICAL["text"]
    assert first.id == "a1"
    expected = {
        "language": ["fre"],
        "license": "CC-BY-4.0",
        "origin": "mC4",
        "url": "http://a.org",
        "retracted": False,
    }
    assert expected.items() <= first.metadata.items()
    assert first.metadata["source"] == path.name
    assert (second.metadata["title"], second.metadata["origin"]) == ("T", "web")
    assert second.id.startswith(f"{path.name}:")


def test_fields_may_have_any_name(tmp_path):
    fields = {"text": "a summary", "identifier": 3, "filepath": "a.py", "self": "x"}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "1", "content": "The text.", "repeats": "18", **fields}))
    [document], bad, _ = read(path, text_key="content", metadata_keys=["*"])
    assert (document.text, bad) == ("The text.", [])
    assert fields.items() <= document.metadata.items()
    assert "repeats" not in document.metadata, "the mixture would take the document so often"


def test_only_named_columns_become_metadata(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps(MEDICAL | {"patient": "Jane Roe", "metadata": {"mrn": 5, "doi": "10.1/x"}})
    )
    [document], bad, stats = read(path)
    assert bad == []
    assert {
        "url": "http://a.org",
        "doi": "10.1/x",
        "origin": "mC4",
    }.items() <= document.metadata.items()
    assert "Jane" not in str(document.metadata) and "mrn" not in document.metadata
    left_out = "warning_records with the column {}, which is not stored (options.metadata_keys)"
    assert stats == {"total": 1, left_out.format("patient"): 1, left_out.format("mrn"): 1}
    [document], _, stats = read(path, metadata_keys=["mrn"])
    assert (
        document.metadata["mrn"],
        "url" in document.metadata,
        "origin" in document.metadata,
    ) == (5, False, False)


def test_bad_lines_are_put_aside_and_reading_goes_on(tmp_path):
    good = json.dumps(MEDICAL).encode()
    lines = [
        good,
        b'{"text": ',
        b'{"text": "\xff"}',
        b"[1]",
        b'{"body": "x"}',
        b'{"text": 5}',
        b'{"text": "' + b"x" * 5000 + b'"}',
        b'{"text": "\\ud800"}',
        b'{"text": "x", "title": "\\ud800"}',
        good,
        b'{"text": "' + b"x" * 1989 + b'"}',  # one byte too long, without an end of the line
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    documents, bad, stats = read(path, max_record_bytes=2000)
    assert len(documents) == 2
    wrong = ["invalid structure"]
    assert [entry.reason for entry in bad] == [
        "not JSON",
        "not UTF-8",
        *wrong * 3,
        "too long",
        *wrong * 2,
        "too long",
    ]
    assert bad[0].position == f"line 2, byte {len(good) + 1}"
    assert bad[5].position.startswith("line 7")
    assert "5,0" in bad[5].detail
    assert {entry.file for entry in bad} == {str(path)}
    assert stats["total"] == 11
    assert (
        sum(count for key, count in stats.items() if key.startswith("dropped_quarantined, ")) == 9
    )


def test_a_huge_line_takes_no_memory(tmp_path):
    """A line of 100 MB between two good ones (its middle is a hole in the file)."""
    path = tmp_path / "huge.jsonl"
    good = json.dumps(MEDICAL).encode()
    with path.open("wb") as file:
        file.write(good + b'\n{"text": "')
        file.seek(100_000_000, 1)
        file.write(b'"}\n' + good)
    tracemalloc.start()
    try:
        documents, [bad], stats = read(path, max_record_bytes=2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [document.id for document in documents] == ["a1", "a1"]
    assert (bad.reason, bad.position) == ("too long", f"line 2, byte {len(good) + 1}")
    assert bad.detail == "100,000,013 bytes, the limit is 1,048,576 (max_record_bytes)"
    assert stats["total"] == 3
    assert peak < 10_000_000


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [
        MEDICAL | {"meta": None},
        MEDICAL | {"text": None, "id": "a2"},
        MEDICAL | {"id": "a3", "meta": {"title": "T"}},
    ]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(
            rows,
            schema=pyarrow.schema(
                {
                    **{key: pyarrow.string() for key in MEDICAL},
                    "meta": pyarrow.struct({"title": pyarrow.string()}),
                }
            ),
        ),
        path,
    )
    documents, bad, _ = read(path)
    assert [(document.id, document.metadata["title"]) for document in documents] == [
        ("a1", ""),
        ("a3", "T"),
    ]
    assert [(entry.position, entry.reason) for entry in bad] == [("row 2", "invalid structure")]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet is not complete Parquet"):
        read(path)


def test_what_a_corpus_cannot_hold(tmp_path):
    """Text that is not UTF-8, which Arrow lets pass, and fields without a form in JSON.

    Their neighbours come unchanged.
    """
    good, broken = [b"Good text.", b"Another."], [b"b\xffad", b"Third."]
    text = pyarrow.Array.from_buffers(
        pyarrow.string(), 4, pyarrow.array([*good, *broken]).buffers()
    )
    times = pyarrow.array([1, 2, 3, 4], pyarrow.timestamp("ns"))
    number = pyarrow.array([None, None, None, decimal.Decimal("1.5")])
    columns = {
        "text": text,
        "id": ["a", "b", "c", "d"],
        "language": ["fr"] * 4,
        "time": times,
        "number": number,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    documents, bad, _ = read(tmp_path / "a.parquet", metadata_keys=["*"])
    found = [(document.text, document.id, document.metadata["language"]) for document in documents]
    assert found == [("Good text.", "a", ["fre"]), ("Another.", "b", ["fre"])]
    assert [(entry.position, entry.reason) for entry in bad] == [
        ("row 3", "invalid structure"),
        ("row 4", "invalid structure"),
    ]
    assert "not JSON serializable: decimal.Decimal" in bad[1].detail


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_truncated_and_damaged_data_give_what_came(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    noise = random.Random(1)
    lines = "".join(
        json.dumps(MEDICAL | {"url": noise.randbytes(400).hex()}) + "\n" for _ in range(600)
    ).encode()
    whole = PACK[f".jsonl{ending}"](lines)
    for data in (whole[:-200], whole[:-20_000] + b"x" * 20_000):
        path.write_bytes(data)
        ids = []
        with pytest.raises(
            DataError, match=r"a\.jsonl\.\w+ is not complete (gzip|bzip2|Zstandard) data"
        ):
            ids.extend(
                document.id for document in RecordsReader(str(tmp_path)).read_file(path.name)
            )
        assert len(ids) > 100


def test_memory_address(tmp_path):
    """The same reader behind an fsspec address."""
    import fsspec

    from data_prep.curation.input_files import describe, find_input_files

    system = fsspec.filesystem("memory")
    system.pipe("/bucket/x/a.jsonl", json.dumps(MEDICAL).encode())
    system.pipe("/bucket/x/b.txt", b"")
    try:
        [(path, size)] = find_input_files("memory://bucket/x", RecordsReader.endings)
        assert (path, size) == ("memory:///bucket/x/a.jsonl", len(json.dumps(MEDICAL)))
        assert find_input_files("memory://bucket/*/*.jsonl", ()) == [(path, size)]
        assert describe(path)["bytes"] == size
        folder, _, name = path.rpartition("/")
        [document] = RecordsReader(folder).read_file(name)
        assert document.id == "a1"
        with pytest.raises(DataError, match="holds no file that ends in"):
            find_input_files("memory://bucket/y", [".jsonl"])
        with pytest.raises(DataError, match="cannot read nosuch://a"):
            find_input_files("nosuch://a", [".jsonl"])
    finally:
        system.rm("/bucket", recursive=True)


def test_guidelines(tmp_path):
    record = {
        "id": 7,
        "source": "who",
        "title": "Dengue",
        "clean_text": "# Care\nDrink.",
        "raw_text": "…",
        "url": "u",
        "overview": None,
    }
    lines = [
        record,
        record | {"id": 8, "clean_text": "Dengue\nis fever."},
        record | {"id": 9, "clean_text": None},
    ]
    path = tmp_path / "open_guidelines.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    (first, second), bad, _ = read_raw(GuidelinesReader, path)
    assert (first.id, first.text) == ("guideline:7", "Dengue\n\n# Care\nDrink.")
    assert second.text == "Dengue\nis fever."
    assert {
        "origin": "who",
        "redistributable": True,
        "language": ["eng"],
    }.items() <= first.metadata.items()
    assert [entry.reason for entry in bad] == ["invalid structure"]
