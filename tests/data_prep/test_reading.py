"""A bad record between two good ones, of many kinds.

It is put into quarantine, and its neighbours are kept.
"""

import io
import json
import struct
import tarfile
import zipfile

import pytest

from data_prep import curate
from data_prep.curation.input_files import InputFile
from data_prep.curation.source_reader import SourceFiles
from data_prep.readers import READERS
from tests.data_prep.fuzz_samples import PACKERS, lines, parquet
from tests.data_prep.material import (
    many_records,
    pdf_bytes,
    read_records,
    record_xml,
    write_medline,
)
from tests.data_prep.test_web import PAGE, write_warc

PROSE = (
    "Asthma is a long-term condition of the airways that makes breathing hard, and it can be"
    " treated well. "
)


def article(
    number,
    body="<p>Text.</p>",
    title="<title-group><article-title>Title</article-title></title-group>",
):
    front = (
        "<front><article-meta><article-id"
        f" pub-id-type='pmc'>{number}</article-id>{title}</article-meta></front>"
    )
    return f"<article>{front}<body>{body}</body></article>".encode()


def packed(*members):
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return PACKERS[".gz"](stream.getvalue())


def zipped(change=lambda data: data, **members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(f"{name}.txt", text)
    return change(stream.getvalue())


def other_offset(data):
    """A ZIP archive the second member of which does not begin where the directory says."""
    offset = data.rindex(b"PK\1\2") + 42
    return data[:offset] + struct.pack("<I", 3) + data[offset + 4 :]


def damaged_member(data):
    offset = data.index(b"b.txt") + len(b"b.txt")
    return data[:offset] + b"\xff\xff\xff" + data[offset + 3 :]


def overlapping():
    """A ZIP archive in whose directory a member stands three times."""
    data = zipped(a="One text.")
    entry = data[data.index(b"PK\1\2") : data.index(b"PK\5\6")]
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 3, 3, 3 * len(entry), data.index(b"PK\1\2"), 0)
    return data[: data.index(b"PK\1\2")] + entry * 3 + end


def warc(tmp_path, *records, fields=None):
    path = tmp_path / "a.warc"
    answers = [
        (f"http://s.org/{n}", "200 OK", [("Content-Type", content_type), *headers], data)
        for n, (content_type, headers, data) in enumerate(records)
    ]
    write_warc(path, answers, fields)
    return path.read_bytes()


def pages(tmp_path, *middle, fields=None):
    good = ("text/html", [], PAGE.encode())
    return warc(tmp_path, good, *middle, good, fields={"content": "main"} | (fields or {}))


def without_address(tmp_path):
    data = pages(tmp_path, ("text/html", [], b"<p>x</p>"))
    return data.replace(b"WARC-Target-URI: http://s.org/1\r\n", b"")


def looping_pdf():
    """A PDF file whose page shows a form that shows itself twice: 2^n steps."""
    data = pdf_bytes([PROSE]).replace(b"/Font << /F1 3 0 R >>", b"/XObject << /X 6 0 R >>")
    start = data.index(b"stream\n") + 7
    data = (
        data[:start]
        + b"/X Do".ljust(data.index(b"\nendstream") - start)
        + data[data.index(b"\nendstream") :]
    )
    inner = b"/X Do /X Do"
    form_object = (
        b"6 0 obj\n<< /Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources << /XObject << /X 6"
        b" 0 R >> >> /Length %d >>\nstream\n%s\n"
    )
    return (
        data[: data.index(b"xref")]
        + form_object % (len(inner), inner)
        + b"endstream\nendobj\ntrailer << /Size 7 /Root 1 0 R >>\n%%EOF\n"
    )


def medline(middle):
    records = [*many_records(1, 1), middle, *many_records(2, 1)]
    return ("<PubmedArticleSet>" + "".join(records) + "</PubmedArticleSet>").encode()


def around(bad, good=lambda number: article(number), ending=".nxml"):
    return {f"a{ending}": good(1), f"b{ending}": bad, f"c{ending}": good(2)}


HEADING = "<MeshHeading><QualifierName>x</QualifierName></MeshHeading>"
EMPTY_MATH = '<math xmlns="http://www.w3.org/1998/Math/MathML"><semantics/></math>'
GOOD_LINE = {"text": "A text.", "id": "1"}
RECORD_KINDS = {
    "surrogate key": b'{"\\ud800k": 1, "text": "x"}\n',
    "surrogate in the metadata": b'{"text": "x", "meta": {"a": ["\\udfff"]}}\n',
    "nested metadata": b'{"text": "x", "meta": "' + b"[" * 100_000 + b'"}\n',
    "nested": b'{"text": "x", "meta": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "nested a little": b'{"text": "x", "y": ' + b"[" * 600 + b"]" * 600 + b"}\n",
    "huge number": b'{"text": "x", "year": ' + b"9" * 6000 + b"}\n",
    "no text": b'{"id": 1}\n',
    "binary": b"\xff\xfe\x00\n",
}


def between_good_lines(data):
    return {"a.jsonl": lines(GOOD_LINE) + data + lines(GOOD_LINE)}


def abstract(text):
    return {"a.xml": medline(record_xml(9, abstract=text))}


def numbered_text(number):
    return b"Text %d" % number


def numbered_pdf(number):
    return pdf_bytes([f"{PROSE} {number}"])


def package_with_a_bad_name():
    members = [("a.nxml", article(1)), ("b\xff\xfe.nxml", b"<broken"), ("c.nxml", article(2))]
    return {"a.tar.gz": packed(*members)}


def one_of_a_set():
    bad = article(3, f"<p>{HUGE_REFERENCE}</p>")
    return {"a.xml": b"<set>" + article(1) + bad + article(2) + b"</set>"}


def wrong_offset():
    return {
        "a.zip": zipped(a="One.", b="Two."),
        "b.zip": zipped(other_offset, a="Three.", b="Four."),
    }


def one_damaged_member():
    return {"a.zip": zipped(damaged_member, a="One." * 99, b="Two." * 99, c="Three." * 99)}


HUGE_REFERENCE = f"&amp;#{'9' * 5000};"
DEEP_TEI = b"<TEI xmlns='http://www.tei-c.org/ns/1.0'><text><body>" + b"<div>" * 3000
DEEP_ITALICS = "<i>" * 1500 + "x" + "</i>" * 1500
BROKEN_BROTLI = ("text/html", [("Content-Encoding", "br")], b"\x8b\xff\x01x")
BROKEN_PDF = ("application/pdf", [], b"%PDF-1.4 x")
KINDS = {
    **{
        f"records: {name}": ("records", lambda _, data=data: between_good_lines(data))
        for name, data in RECORD_KINDS.items()
    },
    "jats: huge character reference": (
        "jats",
        lambda _: around(article(3, f"<p>{HUGE_REFERENCE}</p>")),
    ),
    "jats: deep": ("jats", lambda _: around(article(3, "<sec>" * 3000 + "</sec>" * 3000))),
    "jats: broken": ("jats", lambda _: around(b"<article><front>")),
    "jats: another root": ("jats", lambda _: around(b"<html/>")),
    "jats: name in a package": ("jats", lambda _: package_with_a_bad_name()),
    "jats: one of a set": ("jats", lambda _: one_of_a_set()),
    "tei: deep": ("tei", lambda _: around(DEEP_TEI, tei, ".xml")),
    "medline: deep": ("medline", lambda _: abstract(DEEP_ITALICS)),
    "medline: huge character reference": ("medline", lambda _: abstract(HUGE_REFERENCE)),
    "text: no UTF-8": ("text", lambda _: around(b"\xff\xfe\xff", numbered_text, ".txt")),
    "text: offset": ("text", lambda _: wrong_offset()),
    "text: damaged member": ("text", lambda _: one_damaged_member()),
    "text: overlap": ("text", lambda _: {"a.txt": b"Text.", "b.zip": overlapping()}),
    "warc: no address": ("warc", lambda path: {"a.warc": without_address(path)}),
    "warc: broken brotli": ("warc", lambda path: {"a.warc": pages(path, BROKEN_BROTLI)}),
    "warc: broken pattern": (
        "warc",
        lambda path: {"a.warc": pages(path, fields={"documents": "("})},
    ),
    "warc: broken selector": (
        "warc",
        lambda path: {"a.warc": pages(path, fields={"content": "a["})},
    ),
    "warc: broken PDF": ("warc", lambda path: {"a.warc": pages(path, BROKEN_PDF)}),
    "pdf: broken": ("pdf", lambda _: around(b"%PDF-1.4\nrubbish", numbered_pdf, ".pdf")),
    "pdf: surrogate": ("pdf", lambda _: around(titled_pdf(b"<FEFFD800>"), numbered_pdf, ".pdf")),
    "pdf: loop": ("pdf", lambda _: around(looping_pdf(), numbered_pdf, ".pdf")),
}


def tei(number):
    title = (
        "<teiHeader><fileDesc><titleStmt><title>Paper"
        f" {number}</title></titleStmt></fileDesc></teiHeader>"
    )
    return (
        "<TEI"
        f" xmlns='http://www.tei-c.org/ns/1.0'>{title}<text><body><p>Text.</p></body></text></TEI>".encode()
    )


def titled_pdf(title):
    data = pdf_bytes([PROSE])
    return data.replace(b"/Root 1 0 R", b"/Root 1 0 R /Info 3 0 R").replace(
        b"/Helvetica", b"/Helvetica /Title %s" % title
    )


def read(tmp_path, reader, files, **options):
    """Read files as a task of curate.py does; return documents, quarantine and counts."""
    folder = tmp_path / "raw"
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    defaults = {"max_record_seconds": 1, "max_record_memory": 2**29}
    if reader == "records":
        defaults["metadata_keys"] = ["*"]
    options = READERS[reader].Options(**defaults | options)
    raw = [
        InputFile(reader, str(folder / name), len(data), options) for name, data in files.items()
    ]
    source = SourceFiles([raw], str(tmp_path / "log"), str(tmp_path / "quarantine"))
    documents = list(source.run())
    noted = tmp_path / "quarantine/00000.jsonl"
    bad = [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []
    return documents, bad, {label: int(stat.total) for label, stat in source.stats.stats.items()}


@pytest.mark.parametrize("format_name", KINDS)
def test_one_bad_record_between_good_ones(format_name, tmp_path):
    reader, make = KINDS[format_name]
    documents, bad, counts = read(tmp_path, reader, make(tmp_path))
    assert len(bad) >= 1, "it is reported"
    assert all(
        entry["file"] and entry["position"] and entry["reason"] and entry["detail"] for entry in bad
    )
    assert counts.get("broken files", 0) == 0, bad
    expected = {"text: overlap": 2, "text: offset": 3}.get(format_name, 2)
    assert len(documents) == expected
    assert counts["total"] == len(documents) + sum(
        count for label, count in counts.items() if label.startswith("dropped_")
    )


def test_a_record_that_takes_too_long_is_ended(tmp_path):
    good = ("text/html", [], PAGE.encode())
    data = warc(
        tmp_path, good, ("application/pdf", [], looping_pdf()), good, fields={"content": "main"}
    )
    documents, [bad], counts = read(tmp_path, "warc", {"a.warc": data}, max_record_memory=2**31)
    assert [document.id for document in documents] == ["http://s.org/0", "http://s.org/2"]
    assert bad["position"] == "record http://s.org/1"
    assert (bad["reason"], bad["detail"]) == (
        "time limit",
        "took more than 1 s of processor time (max_record_seconds)",
    )
    assert counts == {"total": 3, "dropped_quarantined, time limit": 1, "input_files": 1}


def test_a_pattern_that_never_ends_keeps_no_page_of_its_part(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.readers.warc._PATTERN_SECONDS", 0.1)
    page = ("200 OK", [("Content-Type", "text/html")], PAGE.encode())
    addresses = ["http://s.org/1", "http://s.org/" + "a" * 60, "http://s.org/3"]
    write_warc(
        tmp_path / "a.warc",
        [(address, *page) for address in addresses],
        {"documents": r"1$|/(a|a)+[bc]$|3$", "content": "main"},
    )
    documents, bad, _ = read(
        tmp_path, "warc", {"a.warc": (tmp_path / "a.warc").read_bytes()}, max_record_seconds=60
    )
    assert [document.id for document in documents] == ["http://s.org/1"]
    assert [entry["reason"] for entry in bad] == ["slow pattern"] * 2


@pytest.mark.slow
def test_a_record_that_takes_too_much_memory_is_refused(tmp_path):
    """A header of a tar member that unpacks to a gigabyte."""
    header = tarfile.TarInfo("L")
    header.size, header.type = 2**30, b"L"
    bomb = PACKERS[".gz"](header.tobuf(tarfile.USTAR_FORMAT) + bytes(2**30))
    files = {"a.nxml": article(1), "b.tar.gz": bomb, "c.nxml": article(2)}
    documents, [bad], counts = read(tmp_path, "jats", files, max_record_seconds=60)
    assert [document.id for document in documents] == ["PMC1", "PMC2"]
    assert bad["position"] == "after record 0"
    assert "took more than 536,870,912 bytes of memory (max_record_memory)" in bad["detail"]
    assert counts["broken files"] == 1


def test_rows_without_a_python_value(tmp_path):
    import pyarrow

    table = pyarrow.table(
        {
            "text": ["One.", "Two.", "Three."],
            "date": pyarrow.array([0, 2**62, 0], pyarrow.timestamp("us")),
        }
    )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    documents, [bad], _ = read(
        tmp_path, "records", {"a.parquet": stream.getvalue(), "b.parquet": parquet([GOOD_LINE])}
    )
    assert [document.text for document in documents] == ["One.", "Three.", "A text."]
    assert bad["position"] == "row 2"


def test_metadata_that_steps_read_have_the_expected_types(tmp_path):
    wrong = {
        "date": 2020,
        "language": 7,
        "publication_types": {"a": 1},
        "mesh": "Humans",
        "pmid": 5,
        "title": ["x"],
        "text_language": 3,
    }
    [document], bad, _ = read(tmp_path, "records", {"a.jsonl": lines(GOOD_LINE | wrong)})
    assert bad == []
    fields = document.metadata
    assert (fields["date"], fields["language"], fields["pmid"], fields["title"]) == (
        "2020",
        ["7"],
        "5",
        "",
    )
    assert fields["publication_types"] == []
    assert fields["origin_mesh"] == "Humans"
    assert {"mesh", "text_language"}.isdisjoint(fields)


@pytest.mark.multiprocess
def test_a_killed_and_restarted_run_gives_the_same(tmp_path, monkeypatch):
    """A run that ends behind a quarantined record resumes to the same corpus as a single run."""
    from galen.run_folder import RunFolder

    raw = tmp_path / "raw"
    write_medline(
        raw / "medline/a.xml",
        [
            *many_records(1, 3),
            record_xml(9, abstract="<i>" * 1500 + "</i>" * 1500),
            *many_records(4, 3),
        ],
    )
    (raw / "pdf").mkdir()
    for name, data in around(
        looping_pdf(), lambda number: pdf_bytes([f"{PROSE} {number}"]), ".pdf"
    ).items():
        (raw / "pdf" / name).write_bytes(data)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "output: x\nsteps: []\nmax_error_rate: 0.5\nsplit: {train: 1, validation: 0, test:"
        f" 0}}\nsources:\n- {{reader: medline, path: {raw}/medline}}\n- {{reader: pdf, path:"
        f" {raw}/pdf, options: {{max_record_seconds: 1}}}}\n"
    )
    curate.main([str(recipe), "--workers", "1", f"output={tmp_path / 'whole'}"])
    publish = RunFolder.publish
    monkeypatch.setattr(RunFolder, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        curate.main([str(recipe), "--workers", "1", f"output={tmp_path / 'again'}"])
    for mark in (tmp_path / ".again.partial/log/read/completions").iterdir():
        if mark.name == "00001":
            mark.unlink()  # as if the kill had come inside of that task
    monkeypatch.setattr(RunFolder, "publish", publish)
    curate.main([str(recipe), "--workers", "2", f"output={tmp_path / 'again'}"])
    first, second = (read_records(tmp_path / name / "train") for name in ("whole", "again"))
    assert first == second
    assert len(first) == 8
    assert (tmp_path / "whole/quarantine.jsonl").read_bytes() == (
        tmp_path / "again/quarantine.jsonl"
    ).read_bytes()


def archive(*members, end=True):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as package:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))
        if not end:
            return stream.getvalue()
    return stream.getvalue()


WHOLE = archive(("a.nxml", article(1)), ("b.nxml", article(2)), ("c.nxml", article(3)))
SECOND = 1024
"""Where the second member begins."""
PACKAGES = {
    "a damaged header": WHOLE[: SECOND + 100] + b"\xff" * 20 + WHOLE[SECOND + 120 :],
    "cut in a header": WHOLE[: SECOND + 300],
    "cut between members": WHOLE[:SECOND],
    "empty blocks in between": WHOLE[:SECOND] + bytes(512) + WHOLE[SECOND + 512 :],
    "another archive behind it": archive(("a.nxml", article(1))) + WHOLE,
    "header after header": (
        WHOLE[:SECOND] + tarfile.TarInfo("x").tobuf().replace(b"0ustar", b"xustar") * 3
    ),
}


@pytest.mark.parametrize("format_name", PACKAGES)
@pytest.mark.parametrize("compression", [".tar", ".tar.gz"])
def test_an_incomplete_package_is_reported(format_name, compression, tmp_path):
    """tarfile alone ends in silence."""
    data = PACKAGES[format_name]
    files = {
        f"a{compression}": data if compression == ".tar" else PACKERS[".gz"](data),
        "b.nxml": article(9),
    }
    documents, [bad], counts = read(tmp_path, "jats", files)
    assert [document.id for document in documents] == ["PMC1", "PMC9"]
    assert (bad["position"], bad["reason"]) == ("after record 1", "broken file")
    assert "is not a complete tar archive" in bad["detail"]
    assert counts["broken files"] == 1


def test_records_before_damage_are_read(tmp_path):
    """Not only what was read in a block before the one that holds the damage."""
    good = ("text/html", [], PAGE.encode())
    first, second = (PACKERS[".gz"](warc(tmp_path, good)) for _ in range(2))
    files = {"a.warc.gz": first + second[:150] + b"\xff" * 20 + second[170:] + first}
    documents, [bad], _ = read(tmp_path, "warc", files)
    assert [document.id for document in documents] == ["http://s.org/0"]
    assert (bad["position"], bad["reason"]) == ("after record 1", "broken file")
    assert "is not complete gzip data" in bad["detail"]


def test_records_before_the_end_of_a_process_are_read(tmp_path):
    """A header without an end, read after a page that was not sent yet."""
    good = ("text/html", [], PAGE.encode())
    data = warc(tmp_path, good, good)
    documents, [bad], counts = read(
        tmp_path,
        "warc",
        {"a.warc": data + b"WARC/1.0\r\n" + b"X: y\r\n" * 3_000_000},
        max_record_seconds=0.5,
    )
    assert [document.id for document in documents] == ["http://s.org/0", "http://s.org/1"]
    assert (bad["position"], bad["reason"]) == ("after record 2", "broken file")
    assert (
        bad["detail"]
        == "what follows record 2 took more than 0.5 s of processor time (max_record_seconds)"
    )
    assert counts == {"total": 2, "broken files": 1, "input_files": 1}


def test_a_pattern_that_takes_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.readers.warc._PATTERN_SECONDS", 0.1)
    good = ("200 OK", [("Content-Type", "text/html")], PAGE.encode())
    path = tmp_path / "a.warc"
    write_warc(
        path,
        [
            ("http://s.org/a", *good),
            (f"http://s.org/{'a' * 60}!", *good),
            ("http://s.org/aa", *good),
        ],
        {"documents": "(a|aa)+$"},
    )
    documents, bad, counts = read(
        tmp_path, "warc", {"a.warc": path.read_bytes()}, max_record_seconds=20
    )
    assert [document.id for document in documents] == ["http://s.org/a"]
    assert [entry["reason"] for entry in bad] == ["slow pattern"] * 2
    assert counts["total"] == 3


def test_compressed_pages(tmp_path):
    import brotli

    page = PAGE.encode()
    compressed_page = brotli.compress(page)
    good = ("text/html", [("Content-Encoding", "br")], compressed_page)
    bad = ("text/html", [("Content-Encoding", "br")], compressed_page[:-20])
    documents, [bad_entry], _ = read(
        tmp_path, "warc", {"a.warc": warc(tmp_path, good, bad, ("text/html", [], page))}
    )
    assert [document.id for document in documents] == ["http://s.org/0", "http://s.org/2"]
    assert documents[0].text == documents[1].text
    assert (bad_entry["position"], bad_entry["reason"]) == (
        "record http://s.org/1",
        "damaged compression",
    )
