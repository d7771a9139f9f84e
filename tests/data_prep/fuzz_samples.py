"""Small valid inputs of every format that is read, for the fuzz test to damage."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard

from data_prep.tokenization.indexed_dataset import IndexedFileWriter
from tests.data_prep.material import many_records, pdf_bytes, record_xml
from tests.data_prep.readers.test_s2orc import record as annotated
from tests.data_prep.test_web import PAGE, answers, write_warc

FIXTURES = Path(__file__).parent / "fixtures"
PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
OLD = {
    "paper_id": "1",
    "title": "Old form",
    "metadata": {"doi": "10.1/x", "year": 2020},
    "pdf_parse": {
        "abstract": [{"text": "An abstract.", "cite_spans": [], "ref_spans": []}],
        "body_text": [
            {
                "text": "As shown [1] in Figure 1.",
                "section": "Methods",
                "sec_num": "1.2",
                "cite_spans": [{"start": 9, "end": 12, "ref_id": "BIBREF0"}],
                "ref_spans": [{"start": 16, "end": 24, "ref_id": "FIGREF0"}],
            }
        ],
        "bib_entries": {"BIBREF0": {"title": "A title", "authors": [{"last": "Doe"}]}},
        "ref_entries": {"FIGREF0": {"text": "A caption.", "type_str": "figure", "fig_num": "1"}},
    },
}
GUIDELINE = {
    "id": "7",
    "source": "who",
    "title": "Care",
    "clean_text": "Give fluids early.",
    "url": "u",
    "overview": None,
}
RECORD = {
    "text": "Fever and cough for 3 days.",
    "id": "r1",
    "language": "en",
    "date": "2020-01-02",
    "title": "T",
    "publication_types": ["Review"],
    "mesh": [{"ui": "D1", "name": "Humans", "major": True}],
    "meta": '{"source": "x", "citation_count": 3}',
}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(records):
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), stream)
    return stream.getvalue()


def arrow(records):
    stream = io.BytesIO()
    table = pyarrow.Table.from_pylist(records)
    with pyarrow.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def tar(data, name="PMC1/a.nxml"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(2):
            member = tarfile.TarInfo(f"{number}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def zipped(data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.txt", data)
        archive.writestr("a/2.txt", b"Another text.")
    return stream.getvalue()


def warc(folder):
    path = folder / "sample.warc"
    write_warc(
        path, answers(), {"license": "CC-BY-4.0", "content": "main", "documents": "/a|/b|/c"}
    )
    return path.read_bytes()


def texts_of(name):
    """Real articles from a folder that the environment names, besides the fixture."""
    folder_name = os.environ.get("GALEN_FUZZ_SAMPLES")
    extra = []
    if folder_name:
        extra = [path.read_bytes() for path in sorted(Path(folder_name).glob("*.xml"))[:8]]
    return [(FIXTURES / name).read_bytes(), *extra]


def inner_samples(folder):
    """For each reader, its samples with the ending of their files, not compressed yet."""
    records = [RECORD, RECORD | {"id": 5, "date": 2020, "meta": {"language": "fr"}}]
    medline = (
        b"<PubmedArticleSet>"
        + "".join([*many_records(1, 3), record_xml(9)]).encode()
        + b"</PubmedArticleSet>"
    )
    return {
        "medline": [(".xml", (FIXTURES / "medline.xml").read_bytes()), (".xml", medline)],
        "jats": [(".nxml", data) for data in texts_of("article.nxml")],
        "tei": [(".xml", (FIXTURES / "grobid.tei.xml").read_bytes())],
        "s2orc": [
            (".jsonl", lines(annotated(), OLD)),
            (".jsonl", lines(OLD, annotated(as_json=False))),
        ],
        "guidelines": [(".jsonl", lines(GUIDELINE, GUIDELINE | {"id": 8}))],
        "records": [(".jsonl", lines(*records)), (".parquet", parquet([RECORD]))],
        "text": [(".txt", "Größe 5 µm.\n".encode() * 5)],
        "html": [(".html", PAGE.encode())],
        "warc": [(".warc", warc(folder))],
        "pdf": [(".pdf", pdf_bytes(["Asthma is a condition of the airways. " * 9]))],
    }


def token_file(folder, name="t"):
    """An indexed file of three documents; its prefix."""
    prefix = folder / name
    names = [prefix.with_suffix(ending) for ending in (".bin", ".lengths", ".counts")]
    writer = IndexedFileWriter(*names, np.dtype(np.uint16))
    writer.add(np.arange(12, dtype=np.uint16), np.array([3, 4, 5]), np.array([1, 1, 1]))
    writer.close()
    writer.write_index(prefix.with_suffix(".idx"))
    return prefix
