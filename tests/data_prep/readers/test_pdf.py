from functools import partial

import pytest

from data_prep.readers import pdf
from data_prep.readers.pdf import PdfReader
from data_prep.readers.pdf_text import front_back_matter, joined_pages, looks_scanned
from tests.data_prep.material import pdf_bytes, read_raw, scanned_pdf

PROSE = (
    "Asthma is a long-term condition of the airways that makes breathing hard, and it can be"
    " treated well. "
)


read = partial(read_raw, PdfReader)


def test_text(tmp_path):
    path = tmp_path / "book.pdf"
    path.write_bytes(pdf_bytes([PROSE * 3, "Age <5 years and weight >10 kg. " * 9]))
    [document], bad, stats = read(path)
    assert bad == []
    assert stats == {"total": 1}
    assert (
        " ".join(document.text.split())
        == (PROSE * 3 + "Age <5 years and weight >10 kg. " * 9).strip()
    )
    assert document.metadata["pages"] == 2
    assert document.id.startswith("book.pdf:")


def test_scanned_pages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "has_ocr", lambda: False)
    path = tmp_path / "scan.pdf"
    path.write_bytes(scanned_pdf([None, PROSE * 3, None]))
    [document], [report], stats = read(path)
    assert document.text == (PROSE * 3).strip()
    assert stats == {"total": 1, "scanned pages": 2}
    assert report.position == "file, pages 1, 3"
    assert "2 of 3 pages are scanned" in report.detail
    path.write_bytes(scanned_pdf([None]))
    documents, [report], stats = read(path)
    assert documents == []
    assert stats == {"total": 1, "scanned pages": 1, "dropped_scanned, no OCR": 1}


@pytest.mark.slow
@pytest.mark.skipif(not pdf.has_ocr(), reason="the extra ocr is not installed")
def test_ocr(tmp_path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(scanned_pdf([None]))
    [document], bad, _ = read(path)
    assert bad == []
    assert "breathing hard" in document.text
    assert document.metadata["ocr_pages"] == 1


def test_damage(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4\nrubbish")
    documents, [bad], _ = read(path)
    assert (documents, bad.reason, bad.file) == ([], "broken PDF", str(path))
    path.write_bytes(pdf_bytes([PROSE * 9]))
    documents, [bad], _ = read(path, max_record_bytes=1024)
    assert (documents, bad.reason) == ([], "too long")


def test_lines_become_paragraphs():
    words = ["heart", "liver", "kidney", "spleen", "lung"]
    pages = [
        f"Textbook of medicine {n}\r\nThe {word} infor-\r\nmation on ﬁbrosis, part {n}, goes\r\non"
        f" here until the full margin of {word}\r\nis reached.\r\nNew paragraphs on {word} begin"
        f" and then it\r\n- {word} one\r\n- {word} two\r\n{n}"
        for n, word in enumerate(words)
    ]
    blocks = joined_pages(pages).split("\n\n")
    assert not any("Textbook" in block for block in blocks)
    assert blocks[4:8] == [
        (
            "The liver information on fibrosis, part 1, goes on here until the full margin of liver"
            " is reached."
        ),
        "New paragraphs on liver begin and then it",
        "- liver one",
        "- liver two",
    ]
    assert joined_pages(["co\x02\r\noperation of them"]) == "cooperation of them"
    assert joined_pages(["the state-\nof-the-art of it"]) == "the state-of-the-art of it"
    assert joined_pages(
        ["2.1 Methods\nAll of the patients were seen twice, as\nSmith did (Smith et al.,\n2016)."]
    ).split("\n\n") == [
        "2.1 Methods",
        "All of the patients were seen twice, as Smith did (Smith et al., 2016).",
    ]


def test_rules():
    assert looks_scanned("short")
    assert looks_scanned(". , ; " * 400)
    assert not looks_scanned(PROSE * 3)
    assert front_back_matter(99) == set()
    assert sorted(set(range(200)) - front_back_matter(200))[0] == 7
    assert max(set(range(200)) - front_back_matter(200)) == 194


@pytest.mark.parametrize(
    ("language", "broken", "word"),
    [
        ("en", "beta-\nblocker", "beta-blocker"),
        ("en", "follow-\nup", "follow-up"),
        ("en", "infor-\nmation", "information"),
        ("en", "hyper-\ntension", "hypertension"),
        ("en", "immunohisto-\nchemistry", "immunohistochemistry"),
        ("en", "bio-\nmarkers", "biomarkers"),
        ("en", "patient-\ncentred", "patient-centred"),
        ("en", "dose-\ndependent", "dose-dependent"),
        ("en", "T-\ncell", "T-cell"),
        ("en", "state-\nof-the-art", "state-of-the-art"),
        ("en", "infor-\nmation-based", "information-based"),
        ("en", "pre-\nand postoperative", "pre- and postoperative"),
        ("en", "COVID-\n19", "COVID-19"),
        ("en", "non-\nHodgkin", "non-Hodgkin"),
        ("de", "Blut-\ndruck", "Blutdruck"),
        ("de", "Patienten-\nversorgung", "Patientenversorgung"),
        ("de", "Haupt-\nund Nebenwirkungen", "Haupt- und Nebenwirkungen"),
        ("de", "Vitamin-\nMangel", "Vitamin-Mangel"),
        ("fr", "peut-\nêtre", "peut-être"),
        ("fr", "traite-\nment", "traitement"),
        ("en", "ran-\ndomised", "randomised"),
        ("es", "enfer-\nmedad", "enfermedad"),
        ("pt", "trata-\nmento", "tratamento"),
        ("ru", "забо-\nлевание", "заболевание"),
        ("ru", "кто-\nто", "кто-то"),
        ("xx", "unbe-\nkannt", "unbekannt"),
    ],
)
def test_a_hyphen_at_the_end_of_a_line(language, broken, word):
    for hyphen in ("-", "\ufffe", "\x02", "\u2010"):
        assert (
            joined_pages([f"with {broken.replace('-', hyphen, 1)} in it"], language)
            == f"with {word} in it"
        )


def test_the_document_decides_how_a_word_is_joined():
    assert (
        joined_pages(["The zig-zag and the zig-\nzag of it"]) == "The zig-zag and the zig-zag of it"
    )
    assert (
        joined_pages(["A betablocker, no beta-\nblocker at all"])
        == "A betablocker, no betablocker at all"
    )
    assert joined_pages(["A soft\u00adhyphen"]) == "A softhyphen"


@pytest.mark.parametrize(
    "footer",
    [
        "https://www.site.org/asthma 1/1",
        "file:///C:/Users/x/a.html",
        "Page 1 of 1",
        "Seite 1 von 1",
        "1/1",
        "- 1 -",
        "1",
        "11/29/26, 10:14 AM Asthma - Site",
        "29.11.2026, 10:14 Asthma",
        "Downloaded from http://bmj.com/ on 5 June 2020",
        "Printed on 5 June 2020",
    ],
)
def test_print_footers_of_a_single_page(footer):
    assert (
        joined_pages([f"Asthma is common in\nall ages.\n{footer}"])
        == "Asthma is common in all ages."
    )
    assert (
        joined_pages([f"{footer}\nAsthma is common in\nall ages."])
        == "Asthma is common in all ages."
    )


@pytest.mark.parametrize(
    "line",
    [
        "Take 5 mg.",
        "2016).",
        "5 mg",
        "See https://a.org for more on it",
        "Seen on 5 June 2020 in 10 adults.",
    ],
)
def test_last_lines_that_are_no_footers_are_kept(line):
    assert line in joined_pages([f"Asthma is common.\n{line}"])
