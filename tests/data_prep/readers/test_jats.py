import gzip
import io
import shutil
import tarfile
from functools import partial
from pathlib import Path

import pytest
from lxml import etree

from data_prep.readers.jats import JatsReader
from galen.errors import DataError
from tests.data_prep.jats_reference import missing, segments
from tests.data_prep.material import read_raw

FIXTURE = Path(__file__).parents[1] / "fixtures" / "article.nxml"
CITED = "[bib_ref]One two three four five six seven eight nine ten eleven twelve..., Doe[/bib_ref]"


read = partial(read_raw, JatsReader)


def blocks(**options):
    [document], _, _ = read(FIXTURE, **options)
    return document.text.split("\n\n")


def test_every_element_is_rendered_in_order():
    assert blocks() == [
        "HIV and [Na+] in children: a review",
        "# Abstract",
        "## Background",
        "Age <5 years and weight >10 kg; P < 0.05; 10^3 cells of CO2.",
        "Opening without a section.",
        "# 1 HIV today",
        (
            f"First sentence {CITED},[bib_ref]Anonymous. Short.[/bib_ref] goes on"
            f" {CITED}–[bib_ref]Anonymous. Short.[/bib_ref], see [fig_ref]Figure 1A: Viral load."
            " Bars are means of ten or more runs in mice...[/fig_ref]; end of it ([fig_ref]Table"
            " 1: Doses.[/fig_ref])."
        ),
        (
            "[fig]Figure 1: Viral load. Bars are means of ten or more runs in mice that were fed on"
            " bread.[/fig]"
        ),
        "A note inside.",
        "[table]Table 1: Doses.[/table]",
        "A list:",
        "1. one\n2. two\n  - inner",
        "and after the list [a].",
        "[a] A note apart.",
        "## pH of blood",
        "**Box 1. Key points**",
        "Boxed prose stays.",
        "Formula",
        "[formula]$E = mc^2$ (1)[/formula]",
        "where x^2 is known (http://a.org/) α.",
        "# Appendix",
        "More prose.",
    ]


def test_options():
    plain = blocks(citations="drop", figures="captions", table_bodies=True)
    assert "First sentence goes on, see Figure 1A; end of it (Table 1)." in plain
    assert "Table 1: Doses.\n| Drug | mg |\n| --- | --- |\n| A\\|B | 5 |\nmg, milligrams." in plain
    assert "$E = mc^2$ (1)" in plain
    marker = blocks(citations="marker", figures="drop")
    assert "First sentence [1,2] goes on [1–2], see Figure 1A; end of it (Table 1)." in marker
    assert not any(block.startswith(("Figure", "Table")) for block in marker)


def test_metadata():
    [document], _, stats = read(FIXTURE)
    assert document.id == "PMC12345"
    assert document.metadata == {
        "pmcid": "PMC12345",
        "pmid": "678",
        "doi": "10.1/x",
        "title": "HIV and [Na+] in children: a review",
        "article_type": "review-article",
        "publication_types": ["Review"],
        "journal": "Journal of Made-up Medicine",
        "language": ["eng"],
        "date": "2013-02-03",
        "copyright": "© 2013 A. Author Open access. (CC-BY-NC-3.0)",
        "license": "CC-BY-NC-3.0",
        "retracted": False,
        "full_text": True,
        "source": "article.nxml",
    }
    assert stats["sub-articles skipped"] == 1


def test_real_articles_are_complete(jats_folder):
    """All words of the body's text nodes stand in the output in order."""
    licenses = {}
    for path in sorted(jats_folder.glob("*.nxml")):
        [document], _, _ = read(path, citations="marker", figures="captions", table_bodies=True)
        body = etree.parse(path, etree.XMLParser(load_dtd=False, resolve_entities=False)).find(
            "body"
        )
        runs, _ = segments(body)
        assert len(runs) > 10
        assert missing(body, document.text) == []
        half = document.text.split("\n\n")
        assert missing(body, "\n\n".join(half[: len(half) // 2] + half[len(half) // 2 + 1 :])), (
            "the check sees a paragraph that is gone"
        )
        licenses[document.id] = document.metadata["license"]
        assert document.metadata["pmid"] and document.metadata["doi"] and document.metadata["date"]
    assert licenses == {
        "PMC1790863": "CC-BY",
        "PMC2329613": "CC-BY-2.0",
        "PMC2599765": "public-domain",
        "PMC2994229": "",
        "PMC3166277": "CC-BY-2.0",
        "PMC3460867": "CC-BY",
        "PMC3574550": "CC-BY-NC-3.0",
        "PMC3585041": "CC-BY",
    }


@pytest.mark.parametrize("citations", ["bib_ref", "drop"])
def test_real_articles_have_no_leftover_brackets(jats_folder, citations):
    for path in sorted(jats_folder.glob("*.nxml")):
        [document], _, _ = read(path, citations=citations)
        assert not any(
            scrap in document.text
            for scrap in ("[]", "()", "[,", "(,", ",]", "[–", "\ue000", "\ue001", "  ")
        )
        assert ("[bib_ref]" in document.text) == (citations == "bib_ref")
        assert document.text.count("[bib_ref]") == document.text.count("[/bib_ref]")


def package(path, members):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["oa.tar.gz", "oa.tar"])
def test_package_and_its_bad_members(tmp_path, name):
    good = FIXTURE.read_bytes()
    path = package(
        tmp_path / name,
        {
            "PMC1/a.nxml": good,
            "PMC1/a.pdf": b"%PDF",
            "PMC2/broken.nxml": good[: len(good) // 2],
            "PMC3/other.xml": b"<html/>",
            "PMC4/long.xml": b"<article>" + b"x" * 25_000 + b"</article>",
            "PMC5/encoding.xml": good.replace(b"UTF-8", b"utf-8").replace("©".encode(), b"\xa9"),
            "PMC7/deep.xml": (
                b"<article><body><p>" + b"<b>" * 1500 + b"</b>" * 1500 + b"</p></body></article>"
            ),
            "PMC6/b.xml": good.replace(b">12345<", b">PMC99<"),
        },
    )
    documents, bad, stats = read(path, max_record_bytes=25_000)
    assert [document.id for document in documents] == ["PMC12345", "PMC99"]
    assert [(record.position.split(", line")[0], record.reason) for record in bad] == [
        ("member PMC2/broken.nxml", "broken XML"),
        ("member PMC3/other.xml", "not JATS"),
        ("member PMC4/long.xml", "too long"),
        ("member PMC5/encoding.xml", "broken XML"),
        ("member PMC7/deep.xml", "too deep"),
    ]
    assert all(record.file == str(path) and record.detail for record in bad)
    assert stats["total"] == 7


def test_every_member_of_a_package_is_counted(tmp_path):
    article = "<article><body><p>{}</p></body></article>".format
    compressed = gzip.compress(article("c").encode())
    members = {
        "a.nxml": article("a").encode(),
        "B.XML": article("b").encode(),
        "c.nxml.gz": compressed,
        "cut.xml.gz": compressed[:-12],
        "inner.tar.gz": b"",
        "inner.zip": b"",
        "a.jpg": b"",
    }
    documents, [bad], stats = read(package(tmp_path / "oa.tar", members))
    assert [document.text for document in documents] == ["a", "b", "c"]
    assert (bad.position, bad.reason) == ("member cut.xml.gz", "damaged")
    assert stats["total"] == 4
    assert stats["warning_archives inside archives, which are not read: unpack them"] == 2
    assert stats["warning_members of archives with the ending .jpg, which are not read"] == 1


def test_truncated_package(tmp_path):
    complete = package(
        tmp_path / "whole.tar.gz", {f"{n}.xml": FIXTURE.read_bytes() + b" " * n for n in range(5)}
    )
    path = tmp_path / "a.tar.gz"
    path.write_bytes(complete.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"a\.tar\.gz is not (a )?complete"):
        read(path)
    plain = package(tmp_path / "b.tar", {"a.xml": FIXTURE.read_bytes() * 4})
    plain.write_bytes(plain.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"b\.tar is not a complete tar"):
        read(plain)


def test_a_file_with_a_namespace_and_compressed(tmp_path):
    path = tmp_path / "a.xml.gz"
    text = FIXTURE.read_text().replace(
        "<article ", '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/" '
    )
    path.write_bytes(gzip.compress(text.encode()))
    [document], _, _ = read(path)
    assert document.text.split("\n\n") == blocks()


def test_a_title_alone_and_entities(tmp_path):
    shutil.copy(FIXTURE, tmp_path / "secret")
    path = tmp_path / "a.nxml"
    path.write_text(
        "<!DOCTYPE article [<!ENTITY x SYSTEM"
        f' "file://{tmp_path}/secret">]><article><front><article-meta><title-group><article-title>A'
        " &x; title &#945;</article-title></title-group></article-meta></front></article>"
    )
    [document], _, _ = read(path)
    assert document.text == document.metadata["title"]
    assert "Opening" not in document.text
    assert document.text.endswith("α")
    assert document.id.startswith("a.nxml:")
    assert document.metadata["full_text"] is False


JATS = "https://jats.nlm.nih.gov/ns/archiving/1.3/"
OAI = "http://www.openarchives.org/OAI/2.0/"
DEFAULT = f'xmlns="{JATS}"'
NO_NAMESPACE = 'xmlns=""'


def small_article(number, attributes="", prefix=""):
    text = (
        f"<p:article {attributes}><p:front><p:article-meta>"
        f'<p:article-id pub-id-type="pmcid">PMC{number}</p:article-id>'
        f"</p:article-meta></p:front><p:body><p:p>Text of {number}.</p:p></p:body></p:article>"
    )
    return text.replace("p:", prefix)


def record_of(content):
    header = "<header><identifier>i</identifier></header>"
    return f"<record>{header}<metadata>{content}</metadata></record>"


BARE = small_article(1)
WITH_DEFAULT = small_article(1, DEFAULT)
SECOND = small_article(2)
SECOND_WITH_DEFAULT = small_article(2, DEFAULT)


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (f"<pmc-articleset>{WITH_DEFAULT}{SECOND}</pmc-articleset>", [1, 2]),
        (
            f"<pmc-articleset {DEFAULT}>{BARE}{small_article(2, NO_NAMESPACE)}</pmc-articleset>",
            [1, 2],
        ),
        (small_article(1, f'xmlns:j="{JATS}"', "j:"), [1]),
        (
            f"<j:articles xmlns:j='{JATS}'>{small_article(1, '', 'j:')}{SECOND_WITH_DEFAULT}"
            "</j:articles>",
            [1, 2],
        ),
        (
            f"<OAI-PMH xmlns='{OAI}'><responseDate>x</responseDate>"
            f"<GetRecord>{record_of(WITH_DEFAULT)}</GetRecord></OAI-PMH>",
            [1],
        ),
        (
            f"<o:OAI-PMH xmlns:o='{OAI}'><o:ListRecords>{record_of(WITH_DEFAULT)}"
            f"{record_of(SECOND)}<o:resumptionToken>t</o:resumptionToken></o:ListRecords>"
            "</o:OAI-PMH>",
            [1, 2],
        ),
        (
            f"<s:Envelope xmlns:s='urn:s'><s:Body><set>{WITH_DEFAULT}</set></s:Body></s:Envelope>",
            [1],
        ),
        (BARE.replace("<body>", f"<body {DEFAULT}>"), [1]),
        (BARE.replace("<p>", "<p xmlns='urn:other'>"), [1]),
        (BARE.replace("<body>", "<j:body xmlns:j='urn:x'>").replace("</body>", "</j:body>"), [1]),
        (f"<p:message xmlns:p='urn:p'><p:article>{WITH_DEFAULT}</p:article></p:message>", [1]),
        (
            f"<issue><section>{BARE}</section><section>{SECOND_WITH_DEFAULT}</section></issue>",
            [1, 2],
        ),
    ],
)
def test_namespaces_and_envelopes(tmp_path, data, ids):
    (tmp_path / "a.xml").write_text(data)
    documents, bad, stats = read(tmp_path / "a.xml")
    assert [(document.id, document.text) for document in documents] == [
        (f"PMC{n}", f"Text of {n}.") for n in ids
    ]
    assert (bad, stats["total"]) == ([], len(ids))


def test_elements_that_are_no_articles_are_counted(tmp_path):
    deleted = '<record><header status="deleted"><identifier>i</identifier></header></record>'
    dublin = record_of("<dc xmlns='urn:dc'><title>T</title></dc>")
    records = deleted + dublin + record_of(WITH_DEFAULT)
    data = f"<OAI-PMH xmlns='{OAI}'><ListRecords>{records}</ListRecords></OAI-PMH>"
    (tmp_path / "a.xml").write_text(data)
    [document], [bad], stats = read(tmp_path / "a.xml")
    assert document.id == "PMC1"
    assert bad.detail == "<record> in <ListRecords> is no JATS article and holds none"
    assert stats == {
        "total": 3,
        "dropped_deleted record": 1,
        "dropped_quarantined, not JATS": 1,
        "sub-articles skipped": 0,
    }
    for root in ("<book><body/></book>", "<article xmlns='http://docbook.org/ns/docbook'><title>D</title><para>x</para></article>",
                 "<html><body><article><p>Page</p></article></body></html>",
                 f"<OAI-PMH xmlns='{OAI}'><error code='e'>no</error></OAI-PMH>"):  # fmt: skip
        (tmp_path / "a.xml").write_text(root)
        documents, [bad], stats = read(tmp_path / "a.xml")
        assert (documents, bad.reason, stats["total"]) == ([], "not JATS", 1)
    (tmp_path / "a.xml").write_text(
        f"<set>{small_article(1)}<book><front/></book><Reply Id='2' error='none'/></set>"
    )
    documents, bad, stats = read(tmp_path / "a.xml")
    assert (len(documents), len(bad), stats["total"]) == (1, 2, 3)


@pytest.mark.parametrize(
    "name",
    [
        "mml:math xmlns:mml='http://www.w3.org/1998/Math/MathML'",
        "math xmlns='http://www.w3.org/1998/Math/MathML'",
        "math",
    ],
)
def test_mathml_survives(tmp_path, name):
    tag = name.split()[0]
    prefix = tag.removesuffix("math")
    inner = f"<{prefix}msup><{prefix}mi>x</{prefix}mi><{prefix}mn>2</{prefix}mn></{prefix}msup>"
    body = (
        f"<article {DEFAULT}><body><p>Here <inline-formula><{name}>{inner}</{tag}></inline-formula>"
        " is.</p></body></article>"
    )
    (tmp_path / "a.xml").write_text(body)
    [document], _, _ = read(tmp_path / "a.xml")
    assert document.text == "Here x^2 is."


@pytest.mark.parametrize(
    ("tex", "formula"),
    [
        ("<?CDATA y=\\beta_0?>", "$y=\\beta_0$"),
        ("<?TeX [y=\\beta_0]]?>", "$y=\\beta_0$"),
        ("<![CDATA[a<b \\& c]]>", "$a<b \\& c$"),
        ("<!-- $x$ -->", "$x$"),
        ("x<?page 3?>+y", "$x+y$"),
        ("\\documentclass[12pt]{minimal}\n\\usepackage{amsmath}\n\\setlength{\\oddsidemargin}{-69pt}\\begin{document}$$n=4$$"
         "\\end{document}", "$n=4$"),
        ("\\documentclass{article}\\begin{document}\\begin{equation*}n=4\\end{equation*}"
         "\\end{document}", "$n=4$"),
        ("\\usepackage{amsmath}\\pagestyle{empty} $n=4$", "$n=4$"),
        ("\\documentclass{a}\\begin {document}\\[n=4\\]", "$n=4$"),
        ("\\(n=4\\)", "$n=4$"),
        ("\\begin{align*}a&amp;=b\\end{align*}", "$\\begin{align*}a&=b\\end{align*}$"),
    ],
)  # fmt: skip
def test_tex(tmp_path, tex, formula):
    mathml = (
        "<mml:math xmlns:mml='http://www.w3.org/1998/Math/MathML'><mml:mi>q</mml:mi></mml:math>"
    )
    (tmp_path / "a.xml").write_text(
        "<article><body><p>It costs $5:"
        f" <inline-formula><alternatives><tex-math>{tex}</tex-math>{mathml}</alternatives>"
        "</inline-formula>.</p>"
        f"<disp-formula><label>(1)</label><tex-math>{tex}</tex-math></disp-formula></body></article>"
    )
    [document], _, _ = read(tmp_path / "a.xml")
    assert document.text.split("\n\n") == [
        f"It costs $5: {formula}.",
        f"[formula]{formula} (1)[/formula]",
    ]


def test_a_tex_document_without_a_formula_gives_no_text(tmp_path):
    empty = "<tex-math>\\documentclass{article}\\begin{document}\\end{document}</tex-math>"
    (tmp_path / "a.xml").write_text(
        f"<article><body><p>Here <inline-formula>{empty}</inline-formula> it"
        " is.</p></body></article>"
    )
    [document], _, _ = read(tmp_path / "a.xml")
    assert document.text == "Here it is."


def test_cells_of_the_exchange_model(tmp_path):
    cells = "<o:row><o:entry>Drug</o:entry><o:entry>Dose</o:entry></o:row>"
    body = cells.replace("Dose", "5 mg")
    (tmp_path / "a.xml").write_text(
        "<article xmlns:o='urn:oasis'><body><table-wrap><o:table><o:tgroup>"
        f"<o:thead>{cells}</o:thead><o:tbody>{body}</o:tbody>"
        "</o:tgroup></o:table></table-wrap></body></article>"
    )
    [document], _, _ = read(tmp_path / "a.xml", table_bodies=True)
    assert "| Drug | Dose |\n| --- | --- |\n| Drug | 5 mg |" in document.text


def test_a_formula_without_tex_falls_back_to_its_text(tmp_path):
    mathml = (
        "<mml:math xmlns:mml='http://www.w3.org/1998/Math/MathML'><mml:mi>q</mml:mi></mml:math>"
    )
    (tmp_path / "a.xml").write_text(
        f"<article><body><disp-formula><label>(1)</label><tex-math/>{mathml}</disp-formula>"
        "<disp-formula><label>(2)</label><graphic><alt-text>x ="
        " 1</alt-text></graphic></disp-formula>"
        "<disp-formula><label>(3)</label><graphic/></disp-formula></body></article>"
    )
    [document], _, _ = read(tmp_path / "a.xml")
    assert document.text.split("\n\n") == [
        "[formula]q (1)[/formula]",
        "[formula]x = 1 (2)[/formula]",
        "(3)",
    ]
