import gzip
from functools import partial

import pytest

from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.medline import MedlineReader
from galen.errors import DataError
from tests.data_prep.material import FIXTURE, read_raw, record_xml, write_medline

read = partial(read_raw, MedlineReader)


@pytest.fixture(scope="module")
def fixture():
    documents, _, stats = read(FIXTURE)
    return {(document.id, n): document for n, document in enumerate(documents)}, stats


def by_id(fixture, pmid):
    return next(document for (identifier, _), document in fixture[0].items() if identifier == pmid)


def test_markup_entities_and_powers(fixture):
    assert (
        by_id(fixture, "1001").text
        == "Effect of Lactobacillus on CD4+ counts & CO2.\n\nChildren of age <5 years and weight"
        " >10 kg had 10^3 cells per m^2 of 18F-marked gel (p < 0.05), rate 4 s^-1 by ELISA 2 in"
        " [Na+]."
    )


def test_metadata(fixture):
    assert by_id(fixture, "1001").metadata == {
        "pmid": "1001",
        "title": "Effect of Lactobacillus on CD4+ counts & CO2.",
        "language": ["eng"],
        "mesh": [
            {"ui": "D006801", "name": "Humans", "major": False},
            {"ui": "D007778", "name": "Lactobacillus", "major": True},  # by its qualifier
            {"ui": "D015496", "name": "CD4-Positive T-Lymphocytes", "major": True},
        ],
        "publication_types": ["Journal Article"],
        "date": "2021-03-05",
        "copyright": "© 2021 The Authors. Published under the terms of the CC BY 4.0 license.",
        "license": "CC-BY-4.0",
        "retracted": False,
        "source": "medline.xml",
    }


def test_sections_keep_labels_and_other_languages_are_skipped(fixture):
    document = by_id(fixture, "1002")
    assert (
        document.text
        == "A structured abstract.\n\nBACKGROUND: Why it was done.\nMETHODS: How it was done.\nA"
        " part without a name."
    )
    assert document.metadata["date"] == "1978"


def test_titles(fixture):
    translated = by_id(fixture, "1003")
    assert translated.text == translated.metadata["title"] == "On the [14C] method: a letter."
    assert translated.metadata["date"] == "1977"
    vernacular = by_id(fixture, "1004")
    assert vernacular.metadata["title"] == "肺炎の臨床像と Über die Lungenentzündung."
    assert vernacular.metadata["language"] == ["jpn", "eng"]
    assert vernacular.metadata["date"] == "2020-11"
    assert by_id(fixture, "1011").text == ""


def test_mathml(fixture):
    title, abstract = by_id(fixture, "1005").text.split("\n\n")
    assert title == "[A] and [B] compared in relaxation by T1=10^-4 ms"
    assert abstract == "The ratio (SWI/ADC)≤√(3) held."


def test_counts_and_retraction_mark(fixture):
    documents, stats = fixture
    assert len(documents) == 12
    assert stats["total"] == 13
    assert stats["dropped_book record"] == 1
    assert stats["deletion notices"] == 2
    assert [
        identifier
        for (identifier, _), document in documents.items()
        if document.metadata["retracted"]
    ] == ["1006"]


def test_gzip_gives_the_same(tmp_path, fixture):
    compressed = tmp_path / "medline.xml.gz"
    compressed.write_bytes(gzip.compress(FIXTURE.read_bytes()))
    assert [document.text for document in read(compressed)[0]] == [
        document.text for document in fixture[0].values()
    ]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.xml", lambda data: data[:3000], "line .*broken XML"),
        (
            "a.xml",
            lambda data: data.replace(b"</AbstractText>", b"</Oops>", 1),
            "line .*broken XML",
        ),
        ("a.xml", lambda data: b"<article><PubmedArticle/></article>", "root element is <article>"),
        ("a.xml", lambda data: b"", "broken XML"),
        ("a.xml.gz", lambda data: data, "not complete gzip"),
        ("a.xml.gz", lambda data: gzip.compress(data)[:-200], "not complete gzip"),
        (
            "a.xml.gz",
            lambda data: gzip.compress(data)[:900] + b"xxxxxxxx" + gzip.compress(data)[908:],
            "not complete gzip|broken XML",
        ),
    ],
)
def test_damage_is_one_message_with_the_file(tmp_path, name, damage, message):
    path = tmp_path / name
    path.write_bytes(damage(FIXTURE.read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_entities_are_not_expanded(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    path = tmp_path / "a.xml"
    path.write_text(
        "<!DOCTYPE PubmedArticleSet [<!ENTITY x SYSTEM"
        f' "file://{secret}">]><PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>A'
        " &x; title</ArticleTitle></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"
    )
    assert "hidden" not in read(path)[0][0].text


def test_an_endless_record_is_stopped(tmp_path):
    """The memory stays bounded: reading ends at the limit, not at the end of the text node."""
    path = write_medline(
        tmp_path / "a.xml", [record_xml(1), record_xml(2, abstract="word " * 20_000), record_xml(3)]
    )
    reader = MedlineReader(str(tmp_path), ReaderOptions(max_record_bytes=50_000))
    ids = []
    with pytest.raises(DataError, match="longer than 50,000 bytes"):
        ids.extend(document.id for document in reader.read_file(path.name))
    assert ids == ["1"]
