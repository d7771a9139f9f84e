import json

import pytest

from data_prep.readers.s2orc import S2orcReader
from tests.data_prep.material import read_raw

PARTS = [
    ("title", "HIV in adults", {}),
    ("authorlastname", "Doe", {}),
    ("abstract", "Age <5 years — naïve cells.", {}),
    ("sectionheader", "Introduction", {}),
    ("paragraph", "First shown {bibref} and {bibref2} in {figureref} of [Na+].", {}),
    ("sectionheader", "pH of blood", {"n": "2.1"}),
    ("figure", "Figure 1. Bars are means. 1 2 3 4", {"id": "f0"}),
    ("paragraph", "Prose behind the figure stays.", {}),
    ("formula", "E = mc^2", {"id": "e0"}),
    ("paragraph", "The end.", {}),
    ("bibentry", "1. One title, Roe.", {"id": "b0"}),
]


def record(as_bytes=False, as_json=True):
    """A record in the annotated form, with every offset where its text stands."""
    text, by_name = "Running head\n", {}

    def add(name, start, end, attributes=None):
        if as_bytes:
            start, end = len(text[:start].encode()), len(text[:end].encode())
        by_name.setdefault(name, []).append(
            {"start": start, "end": str(end), **({"attributes": attributes} if attributes else {})}
        )

    for name, words, attributes in PARTS:
        marks = {
            "{bibref}": ("bibref", "[1]", {"ref_id": "b0"}),
            "{bibref2}": ("bibref", "[2]", {}),
            "{figureref}": ("figureref", "Fig. 1", {"ref_id": "f0"}),
        }
        start = len(text)
        spans = []
        while any(mark in words for mark in marks):
            mark = min((mark for mark in marks if mark in words), key=words.index)
            annotation, shown, target = marks[mark]
            spans.append((annotation, start + words.index(mark), shown, target))
            words = words.replace(mark, shown, 1)
        text += words
        add(name, start, len(text), attributes)
        for annotation, position, shown, target in spans:
            add(annotation, position, position + len(shown), target)
        if name == "figure":
            add(
                "figurecaption", start + len("Figure 1. "), start + len("Figure 1. Bars are means.")
            )
        if name == "bibentry":
            add("bibtitle", start + 3, start + 12)
            add("bibauthorlastname", start + 14, start + 17)
        text += "\n"
    annotations = {
        name: json.dumps(spans) if as_json else spans for name, spans in by_name.items()
    } | {"venue": None}
    ids = {"PubMed": "678", "PubMedCentral": "123", "DOI": "10.1/x"}
    return {
        "corpusid": 5,
        "externalids": ids,
        "content": {"text": text, "annotations": annotations},
    }


def read(tmp_path, value, **options):
    path = tmp_path / "s2orc.jsonl"
    path.write_text(json.dumps(value) + "\n")
    documents, bad, _ = read_raw(S2orcReader, path, **options)
    return documents, bad


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_annotated(tmp_path, as_bytes, as_json):
    value = record(as_bytes, as_json)
    [document], bad = read(tmp_path, value)
    assert bad == []
    assert document.text.split("\n\n") == [
        "HIV in adults",
        "# Abstract",
        "Age <5 years — naïve cells.",
        "# Introduction",
        (
            "First shown [bib_ref]One title, Roe[/bib_ref] and in [fig_ref]Fig. 1: Bars are"
            " means.[/fig_ref] of [Na+]."
        ),
        "## pH of blood",
        "[fig]Bars are means.[/fig]",
        "Prose behind the figure stays. [formula]E = mc^2[/formula]",
        "The end.",
    ]
    assert document.id == "PMC123"
    assert {
        "pmid": "678",
        "doi": "10.1/x",
        "corpusid": "5",
        "title": "HIV in adults",
        "full_text": True,
    }.items() <= document.metadata.items()


def test_invalid_offsets_are_quarantined(tmp_path):
    value = record()
    value["content"]["annotations"]["paragraph"] = json.dumps([{"start": 0, "end": 10**6}])
    documents, [bad] = read(tmp_path, value)
    assert documents == []
    assert "ends behind the text" in bad.detail
    value["content"]["annotations"]["paragraph"] = [{"start": 3, "end": 1}]
    documents, [bad] = read(tmp_path, value)
    assert documents == []
    assert "an annotation ends before it begins (3 to 1)" in bad.detail


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"title": {"x": 1}}, "title"),
        ({"metadata": {"title": ["T"]}}, "title"),
        ({"externalids": {"DOI": {"x": 1}}}, "DOI"),
        ({"content": {"text": {"x": 1}}}, "text"),
        ({"content": None, "body_text": [{"text": ["x"]}]}, "text"),
    ],
)
def test_values_of_other_types_are_quarantined(tmp_path, change, key):
    documents, [bad] = read(tmp_path, record() | change)
    assert documents == []
    assert f"'{key}' is " in bad.detail


def test_paragraphs(tmp_path):
    old = {
        "paper_id": "77",
        "title": "Old form",
        "abstract": [{"text": "Short.", "cite_spans": [], "ref_spans": [], "section": "Abstract"}],
        "body_text": [
            {
                "text": "Shown before [1] and in Fig 1.",
                "cite_spans": [{"start": 13, "end": 16, "text": "[1]", "ref_id": "BIBREF0"}],
                "ref_spans": [{"start": 24, "end": 29, "text": "Fig 1", "ref_id": "FIGREF0"}],
                "section": "pH",
                "sec_num": "2.1",
            },
            {
                "text": "More of it.",
                "cite_spans": [],
                "ref_spans": [],
                "section": "pH",
                "sec_num": "2.1",
            },
        ],
        "bib_entries": {
            "BIBREF0": {"title": "A title", "authors": [{"first": "A", "last": "Roe"}]}
        },
        "ref_entries": {
            "FIGREF0": {"text": "Bars.", "type": "figure"},
            "TABREF0": {"text": "Rows.", "type": "table"},
        },
    }
    expected = [
        "Old form",
        "# Abstract",
        "Short.",
        "## pH",
        "Shown before [bib_ref]A title, Roe[/bib_ref] and in [fig_ref]Fig 1: Bars.[/fig_ref].",
        "[fig]Bars.[/fig]",
        "More of it.",
        "[table]Rows.[/table]",
    ]
    [document], bad = read(tmp_path, old)
    assert bad == []
    assert document.text.split("\n\n") == expected
    assert document.id == "s2:77"
    nested = {
        "paper_id": "77",
        "title": "Old form",
        "pdf_parse": {key: value for key, value in old.items() if key not in ("paper_id", "title")},
    }
    [document], _ = read(tmp_path, nested)
    assert document.text.split("\n\n") == expected
    [document], _ = read(tmp_path, old, citations="drop", figures="drop")
    assert "Shown before and in Fig 1." in document.text
    [document], _ = read(tmp_path, old | {"body_text": []})
    assert document.metadata["full_text"] is False, "an abstract alone"
    _, [bad] = read(tmp_path, {"paper_id": "1"})
    assert "body_text" in bad.detail


def content(text="Body of it.", **annotations):
    return {"corpusid": 9, "content": {"source": None, "text": text, "annotations": annotations}}


@pytest.mark.parametrize(
    "value",
    [
        {"corpusid": 1, "externalids": {"doi": None}, "content": None},
        {"corpusid": 1, "title": "T", "openaccessinfo": None, "body": None, "bibliography": None},
        {"corpusid": 1, "content": {"source": {"oainfo": None}, "text": None, "annotations": {}}},
        {"corpusid": 1, "content": {"text": "", "annotations": None}, "externalids": None},
        {"corpusid": 1, "content": {}},
        {"paper_id": "1", "pdf_parse": None, "latex_parse": None},
    ],
)
def test_a_paper_without_text_is_counted(tmp_path, value):
    path = tmp_path / "s2orc.jsonl"
    path.write_text(json.dumps(value) + "\n")
    documents, bad, stats = read_raw(S2orcReader, path)
    assert (documents, bad, stats) == ([], [], {"total": 1, "dropped_no text": 1})


@pytest.mark.parametrize(
    "value",
    [
        content(),
        content()
        | {"externalids": None, "title": None, "openaccessinfo": None, "bibliography": None},
        content(
            paragraph=None,
            title=None,
            bibref="",
            figure=[{"start": None, "end": 4}, None],
        ),
        content(abstract=[{"start": "0", "end": "11", "attributes": None}]),
        {
            "corpusid": 9,
            "content": None,
            "body": {"text": "Body of it.", "annotations": None},
            "bibliography": {"text": None, "annotations": None},
        },
        {
            "corpusid": 9,
            "content": {"source": {"oainfo": {"license": None}}, "text": "Body of it."},
        },
        {"corpusid": 9, "content": {"source": None, "text": None}, "body": {"text": "Body of it."}},
        {
            "paper_id": "9",
            "pdf_parse": {"body_text": None},
            "latex_parse": {"body_text": [{"text": "Body of it."}]},
        },
        {
            "paper_id": "9",
            "metadata": None,
            "abstract": None,
            "body_text": [
                {
                    "text": "Body of it.",
                    "cite_spans": None,
                    "ref_spans": None,
                    "section": None,
                    "sec_num": None,
                }
            ],
            "bib_entries": None,
            "ref_entries": None,
        },
        {
            "paper_id": "9",
            "body_text": [
                {
                    "text": "Body of it.",
                    "cite_spans": [{"start": None, "end": None, "ref_id": None}],
                    "ref_spans": [{"start": 0, "end": 4, "ref_id": "F"}],
                }
            ],
            "bib_entries": {"b": None, "c": {"title": None, "authors": None}},
            "ref_entries": {"F": None},
        },
    ],
)
def test_nulls_count_as_unknown(tmp_path, value):
    [document], bad = read(tmp_path, value)
    assert bad == []
    assert document.text.removeprefix("# Abstract\n\n") == "Body of it."
    assert document.id == "s2:9"


@pytest.mark.parametrize("unit", ["characters", "utf-16-le", "utf-8"])
@pytest.mark.parametrize("header", ["sectionheader", "section_header"])
def test_offsets_in_any_unit(tmp_path, unit, header):
    text = "Alpha and 𝓷 beta, naïve. Second one.\nMethods\nWe asked 20 nurses."

    def offset(position):
        return (
            position
            if unit == "characters"
            else len(text[:position].encode(unit)) // (2 if "16" in unit else 1)
        )

    def span(part):
        position = text.index(part)
        return {"start": offset(position), "end": offset(position + len(part))}

    value = content(
        text,
        **{
            header: [span("Methods")],
            "paragraph": [
                span("Alpha and 𝓷 beta, naïve. Second one."),
                span("We asked 20 nurses."),
            ],
        },
    )
    [document], _ = read(tmp_path, value)
    assert document.text.split("\n\n") == [
        "Alpha and 𝓷 beta, naïve. Second one.",
        "# Methods",
        "We asked 20 nurses.",
    ]
