from functools import partial
from pathlib import Path

from data_prep.readers.tei import TeiReader
from tests.data_prep.material import read_raw

FIXTURE = Path(__file__).parents[1] / "fixtures" / "grobid.tei.xml"


read = partial(read_raw, TeiReader)


def test_every_element_is_rendered_in_order():
    [document], _, _ = read(FIXTURE)
    assert document.text.split("\n\n") == [
        "Asthma in [Na+] loss",
        "# Abstract",
        "Age <5 years.",
        "# 1 Introduction",
        (
            "Seen before [bib_ref]One title, Roe[/bib_ref] in [fig_ref]Figure 1: Bars are"
            " means.[/fig_ref]."
        ),
        "## 1.2 pH of blood",
        "Prose",
        "[formula]E = mc^2 (1)[/formula]",
        "goes on.",
        "- one\n- two",
        "[fig]Figure 1: Bars are means.[/fig]",
        "[table]Table 1: Doses.[/table]",
        "# Discussion",
        "The end.",
        "# Appendix",
        "More.",
    ]
    assert document.id == "doi:10.1/y"
    assert {
        "license": "CC-BY-4.0",
        "date": "2019-05-02",
        "language": ["eng"],
        "full_text": True,
    }.items() <= document.metadata.items()


def test_options_and_bad_files(tmp_path):
    [document], _, _ = read(FIXTURE, citations="drop", figures="captions", table_bodies=True)
    assert "Seen before in Figure 1." in document.text
    assert "Table 1: Doses.\n| Drug | mg |\n| --- | --- |\n| A | 5 |" in document.text
    for name, data, reason in [
        ("a.tei.xml", FIXTURE.read_bytes()[:900], "broken XML"),
        ("b.tei.xml", b"<article/>", "not TEI"),
    ]:
        (tmp_path / name).write_bytes(data)
        documents, [bad], _ = read(tmp_path / name)
        assert (documents, bad.reason, bad.file) == ([], reason, str(tmp_path / name))


def test_a_corpus(tmp_path):
    def one(text):
        return f"<TEI><text><body><p>{text}</p></body></text></TEI>"

    (tmp_path / "a.xml").write_text(
        '<teiCorpus xmlns="http://www.tei-c.org/ns/1.0"><teiHeader/><!-- x -->'
        f"{one('One.')}\n<teiCorpus><teiHeader/>{one('Two.')}</teiCorpus>\n<book/>{one('Three.')}"
        "</teiCorpus>"
    )
    documents, [bad], stats = read(tmp_path / "a.xml")
    assert [document.text for document in documents] == ["One.", "Two.", "Three."]
    assert len({document.id for document in documents}) == 3
    assert (bad.position, bad.reason) == ("line 3", "not TEI")
    assert stats["total"] == 4
    (tmp_path / "b.xml").write_text("<teiCorpus><teiHeader/></teiCorpus>")
    documents, [bad], _ = read(tmp_path / "b.xml")
    assert (documents, bad.reason) == ([], "not TEI")


def written(tmp_path, inner, **options):
    path = tmp_path / "a.tei"
    path.write_text(
        f'<TEI xmlns="http://www.tei-c.org/ns/1.0"><text><body>{inner}</body></text></TEI>'
    )
    [document], _, _ = read(path, **options)
    return document.text.split("\n\n")


def test_touching_elements_are_not_glued(tmp_path):
    for inner, text in [
        ("<p><s>They close again.</s><s>We followed 12.5%</s><s>Its cause "
         "<ref type='bibr'>[1]</ref>.</s>After it (all).</p>",
         "They close again. We followed 12.5% Its cause. After it (all)."),
        ("<p><s>One<hi>two</hi>three</s>.</p>", "Onetwothree."),
        ("<p><s>第一句。</s><s>第二句。</s></p>", "第一句。第二句。"),
        ("<p>A<lb/>word, a hy<lb break='no'/>phen</p>", "A word, a hyphen"),
        ("<p>One<note>two</note>three</p>", "One two three"),
    ]:  # fmt: skip
        assert written(tmp_path, inner, citations="drop") == [text]
    assert written(tmp_path, "<div>Loose<p>First.</p><p>Second.</p>tail</div>") == [
        "Loose",
        "First.",
        "Second.",
        "tail",
    ]
    assert written(tmp_path, "<list><item>a</item><item><p>b</p><p>c</p></item></list>") == [
        "- a\n- b c"
    ]
    caption = "<figDesc><div><p><s>One.</s><s>Two.</s></p><p>Three.</p></div></figDesc>"
    rows = "<table><row><cell><p>a</p><p>b</p></cell><cell>c</cell></row></table>"
    table = f"<figure type='table'><head>Table 1</head>{caption}{rows}</figure>"
    assert written(tmp_path, table, table_bodies=True) == [
        "[table]Table 1 One. Two. Three.\n| a b | c |[/table]"
    ]


def test_a_caption_that_refers_to_another_figure(tmp_path):
    caption = "As <ref type='figure' target='#f{}'>Fig</ref>."
    inner = "".join(
        f"<figure xml:id='f{n}'><figDesc>{caption.format(3 - n)}</figDesc></figure>" for n in (1, 2)
    )
    assert len(written(tmp_path, inner)) == 2


def test_a_namespace_prefix_is_accepted(tmp_path):
    path = tmp_path / "a.tei"
    path.write_text(
        "<t:TEI"
        " xmlns:t='http://www.tei-c.org/ns/1.0'><t:text><t:body><t:p>Prose.</t:p></t:body></t:text></t:TEI>"
    )
    [document], _, _ = read(path)
    assert document.text == "Prose."
