"""Web pages and web archives."""

import io
import random

import pytest

from data_prep.readers.html_text import page_text, parse
from data_prep.readers.warc import WarcReader
from data_prep.readers.web_page import HtmlReader
from galen.errors import DataError
from tests.data_prep.material import pdf_bytes

PROSE = (
    "Asthma is a long-term condition of the airways that makes breathing hard, and it can be"
    " treated well in most people. "
)
PAGE = f"""<!DOCTYPE html><html lang="en"><head><title>Asthma - Site</title>
<link rel="license" href="https://creativecommons.org/licenses/by/4.0/"></head>
<body><nav><a href="/">Home</a> <a href="/x">Other pages of the site</a></nav>
<main><h1>Asthma</h1><p>{PROSE * 3}</p>
<p>Children of age &lt;5 years and weight &gt;10 kg: CO<sub>2</sub>, 10<sup>3</sup>, \
[Na<sup>+</sup>].</p>
<h2>What to do</h2><ul><li>Stay calm<ul><li>sit up</li></ul></li>\
<li>Take the <b>blue</b> inhaler</li></ul>
<blockquote><p>{PROSE}</p></blockquote>\
<table><tr><th>Drug</th><th>mg</th></tr><tr><td>A</td><td>5</td></tr></table>
<div>Loose text <div>inside</div> of it</div><script>alert(1)</script></main>\
<footer>Contact us</footer></body></html>"""
BLOCKS = [
    "Asthma",
    (PROSE * 3).strip(),
    "Children of age <5 years and weight >10 kg: CO2, 10^3, [Na+].",
    "## What to do",
    "- Stay calm\n  - sit up\n- Take the blue inhaler",
    f"> {PROSE.strip()}",
    "| Drug | mg |\n| --- | --- |\n| A | 5 |",
    "Loose text",
    "inside",
    "of it",
]


def reader_of(reader_class, folder, **options):
    reader = reader_class(str(folder), reader_class.Options(**options))
    reader.bad = []
    reader.on_bad = reader.bad.append
    return reader


def stats(reader):
    return {key: stat.total for key, stat in reader.stats.stats.items()}


def test_a_selector_selects_the_content():
    assert page_text(parse(PAGE.encode()), "main") == ("Asthma", "\n\n".join(BLOCKS))
    assert page_text(parse(PAGE.encode()), "#nothing") == ("Asthma - Site", "")
    with pytest.raises(ValueError, match=r"'main\[' is not a CSS selector"):
        HtmlReader.Options(content="main[")


def test_inline_code_is_kept_in_its_sentence():
    page = PAGE.replace(
        "<h2>",
        "<p>The <code>HBB</code> gene of haemoglobin was looked at in all of the patients of this"
        " study.</p><h2>",
    )
    assert "The HBB gene of haemoglobin was looked at" in page_text(parse(page.encode()))[1]


def test_without_a_selector_the_content_is_detected():
    _, text = page_text(parse(PAGE.encode()))
    blocks = text.split("\n\n")
    assert blocks[:5] == BLOCKS[:5]
    assert "Contact us" not in text
    assert "Other pages" not in text


@pytest.mark.parametrize(
    ("data", "charset", "title"),
    [
        ("<title>Fièvre</title>".encode("latin-1"), None, "Fièvre"),
        ("<title>Fièvre</title>".encode(), None, "Fièvre"),
        ('<meta charset="shift_jis"><title>発熱</title>'.encode("shift_jis"), None, "発熱"),
        ("<title>Жар</title>".encode("koi8-r"), "koi8-r", "Жар"),
        ("<title>Fièvre</title>".encode(), "no-such-charset", "Fièvre"),
    ],
)
def test_encodings(data, charset, title):
    assert page_text(parse(data + b"<p>x</p>", charset), "p")[0] == title


def test_html_files(tmp_path):
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "empty.html").write_text("")
    (tmp_path / "long.html").write_text(PAGE + " " * 20_000)
    reader = reader_of(HtmlReader, tmp_path, content="main", max_record_bytes=10_000)
    [document] = [
        document
        for name in ("a.html", "empty.html", "long.html")
        for document in reader.read_file(name)
    ]
    assert document.id.startswith("a.html:")
    assert {
        "title": "Asthma",
        "license": "CC-BY-4.0",
        "language": ["eng"],
    }.items() <= document.metadata.items()
    assert stats(reader) == {
        "total": 3,
        "dropped_empty page": 1,
        "dropped_quarantined, too long": 1,
    }


def test_a_bare_less_than_sign_is_accepted():
    _, text = page_text(
        parse(
            b"<html><body><main><p>One pill <penic, twice a day</p><p>and"
            b" rest.</p></main></body></html>"
        ),
        "main",
    )
    assert text == "One pill\n\nand rest."


def write_warc(path, answers, fields=None):
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=path.suffix == ".gz")
        writer.write_record(writer.create_warcinfo_record(path.name, fields or {}))
        for url, status, headers, data in answers:
            http = StatusAndHeaders(status, headers, protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    url, "response", payload=io.BytesIO(data), http_headers=http
                )
            )


def answers():
    return [
        (
            "http://s.org/a",
            "200 OK",
            [("Content-Type", 'Text/HTML; Charset="UTF-8"; level=1')],
            PAGE.encode(),
        ),
        ("http://s.org/gone", "404 Not Found", [("Content-Type", "text/html")], b"<p>no</p>"),
        ("http://s.org/i.png", "200 OK", [("Content-Type", "image/png")], b"\x89PNG"),
        (
            "http://s.org/b.pdf",
            "200 OK",
            [("Content-Type", "application/pdf")],
            pdf_bytes([PROSE * 3]),
        ),
        (
            "http://s.org/c",
            "200 OK",
            [("Content-Type", "text/html; charset=koi8-r; level=1")],
            "<main><p>Жар".encode("koi8-r"),
        ),
    ]


def test_answers_that_state_no_type(tmp_path):
    bodies = {"/a": f"<!doctype html>{PAGE}".encode(), "/b": b"GIF89a", "/c": pdf_bytes([PROSE])}
    write_warc(
        tmp_path / "a.warc",
        [(f"http://s.org{path}", "200 OK", [], body) for path, body in bodies.items()],
    )
    actual = [document.id for document in reader_of(WarcReader, tmp_path).read_file("a.warc")]
    assert actual == ["http://s.org/a", "http://s.org/c"]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_warc(tmp_path, name):
    write_warc(tmp_path / name, answers(), {"license": "CC-BY-NC-4.0", "content": "main"})
    reader = reader_of(WarcReader, tmp_path)
    page, pdf, other = reader.read_file(name)
    assert (page.id, page.text) == ("http://s.org/a", "\n\n".join(BLOCKS))
    assert page.metadata["license"] == "CC-BY-4.0", "what the page itself states counts first"
    assert other.text == "Жар"
    assert other.metadata["license"] == "CC-BY-NC-4.0"
    assert page.metadata["crawled"].endswith("Z")
    assert (pdf.id, pdf.text) == ("http://s.org/b.pdf", (PROSE * 3).strip())
    assert stats(reader) == {
        "total": 5,
        "dropped_status other than 200": 1,
        "dropped_not HTML or PDF": 1,
    }


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_truncated_warc(tmp_path, name):
    url, status, headers, data = answers()[0]
    noise = random.Random(1)
    write_warc(
        tmp_path / name,
        [
            (url, status, headers, data + f"<!--{noise.randbytes(40_000).hex()}-->".encode())
            for _ in range(3)
        ],
    )
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-300])
    documents = []
    with pytest.raises(DataError, match=name):
        documents.extend(reader_of(WarcReader, tmp_path).read_file(name))
    assert len(documents) >= 2


def test_an_unknown_encoding_is_quarantined(tmp_path):
    (tmp_path / "a.html").write_bytes(b"<html><body><p>\x81\x8d\x8f\x90\x9d\xff</p></body></html>")
    reader = reader_of(HtmlReader, tmp_path)
    assert list(reader.read_file("a.html")) == []
    assert [bad.reason for bad in reader.bad] == ["unknown encoding"]
    assert stats(reader) == {"total": 1, "dropped_quarantined, unknown encoding": 1}


def test_the_label_of_the_answer_and_false_ones(tmp_path):
    """The header's label comes before the page's; UTF-8 before both."""
    text = (
        "<html><head><meta charset=koi8-r></head><body><main><p>Жар и кашель."
        f" {PROSE}</p></main></body></html>"
    )
    html = [("Content-Type", "text/html; charset=windows-1251")]
    write_warc(
        tmp_path / "a.warc",
        [
            ("http://s.org/a", "200 OK", html, text.encode("cp1251")),
            ("http://s.org/b", "200 OK", html, text.encode()),
        ],
    )
    for document in reader_of(WarcReader, tmp_path, content="main").read_file("a.warc"):
        assert document.text == f"Жар и кашель. {PROSE.strip()}"


def test_numbers_of_windows_characters():
    assert (
        page_text(parse(b"<p>The patient&#146;s &#147;dose&#148; &#150; 5</p>"), "p")[1]
        == "The patient’s “dose” – 5"
    )


MARK = (
    "<![if !supportLists]><span"
    " style='mso-list:Ignore'>{}<span>&nbsp;&nbsp;</span></span><![endif]>"
)
WORD = f"""<html><head><meta name=Generator content="Microsoft Word 15"><title>Discharge</title>\
</head><body><div class=WordSection1>
<p class=MsoNormal>{PROSE}</p>
<p class=MsoListParagraphCxSpFirst style='mso-list:l0 level1 lfo1'>\
{MARK.format("·")}Aspirin 100 mg<o:p></o:p></p>
<p class=MsoListParagraphCxSpMiddle style='mso-list:l0 level2 lfo1'>\
{MARK.format("o")}with food</p>
<p class=MsoListParagraphCxSpLast style='mso-list:l0 level1 lfo1'>\
{MARK.format("·")}Metformin 500 mg</p>
<p class=MsoNormal>{PROSE}</p>
<p class=MsoListParagraph style='mso-list:l1 level1 lfo2'>{MARK.format("1.")}Rest</p>
<p class=MsoListParagraph style='mso-list:l1 level1 lfo2'>\
{MARK.format("2.")}Drink<!-- x --> water</p></div></body></html>"""


@pytest.mark.parametrize("selector", ["", "body"])
def test_lists_of_word_exports_are_kept(selector):
    _, text = page_text(parse(WORD.encode()), selector)
    assert [block for block in text.split("\n\n") if block.startswith(("-", "1"))] == [
        "- Aspirin 100 mg\n  - with food\n- Metformin 500 mg",
        "1. Rest\n2. Drink water",
    ]


def test_text_behind_comments_and_comparisons_is_kept():
    items = "<ul><li>Check.</li><li>Go.</li></ul>"
    page = (
        f"<main><h1>A</h1><p><!-- x -->{PROSE}</p><p>If 5 < 7 and x &lt; 5 then stop."
        f" {PROSE}</p>{items}</main>"
    )
    for selector in ("", "main"):
        assert page_text(parse(page.encode()), selector)[1].split("\n\n") == [
            "A",
            PROSE.strip(),
            f"If 5 < 7 and x < 5 then stop. {PROSE.strip()}",
            "- Check.\n- Go.",
        ]


def test_a_page_with_little_extracted_text_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "data_prep.readers.html_text.content_of", lambda root, selector: list(root.iter("h1"))
    )
    (tmp_path / "a.html").write_text(PAGE.replace("<h2>", f"<p>{PROSE * 3}</p><h2>"))
    reader = reader_of(HtmlReader, tmp_path)
    [document] = reader.read_file("a.html")
    assert document.text == "Asthma"
    [report] = reader.bad
    assert (report.reason, report.detail.split(" of the")[0]) == (
        "pages with less than half of their text extracted",
        "6",
    )
    assert stats(reader) == {
        "total": 1,
        "warning_pages with less than half of their text extracted": 1,
    }


def test_replacement_characters_are_reported(tmp_path):
    (tmp_path / "few.html").write_text(f"<main><p>\ufffd{PROSE * 20}</p></main>")
    (tmp_path / "many.html").write_text(f"<main><p>\ufffd{PROSE}</p></main>")
    reader = reader_of(HtmlReader, tmp_path, content="main")
    documents = [
        document for name in ("few.html", "many.html") for document in reader.read_file(name)
    ]
    assert len(documents) == 1
    assert [bad.reason for bad in reader.bad] == [
        "pages with replacement characters",
        "damaged text",
    ]
