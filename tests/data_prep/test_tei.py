from functools import partial
from pathlib import Path

from data_prep.readers.tei import TeiReader
from tests.data_prep.material import read_raw

FIXTURE = Path(__file__).parent / "fixtures" / "grobid.tei.xml"


read = partial(read_raw, TeiReader)


def test_everything_in_its_place():
    [document], _, _ = read(FIXTURE)
    assert document.text.split("\n\n") == [
        "Asthma in [Na+] loss",
        "# Abstract",
        "Age <5 years.",
        "# 1 Introduction",
        "Seen before [bib_ref]One title, Roe[/bib_ref] in [fig_ref]Figure 1: Bars are means.[/fig_ref].",
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
    assert {"licence": "CC-BY-4.0", "date": "2019-05-02", "language": ["eng"], "full_text": True}.items() <= document.metadata.items()


def test_options_and_bad_files(tmp_path):
    [document], _, _ = read(FIXTURE, citations="drop", floats="captions", table_bodies=True)
    assert "Seen before in Figure 1." in document.text
    assert "Table 1: Doses.\n| Drug | mg |\n| --- | --- |\n| A | 5 |" in document.text
    for name, data, reason in [("a.tei.xml", FIXTURE.read_bytes()[:900], "broken XML"), ("b.tei.xml", b"<article/>", "not TEI")]:
        (tmp_path / name).write_bytes(data)
        documents, [bad], _ = read(tmp_path / name)
        assert (documents, bad.reason, bad.file) == ([], reason, str(tmp_path / name))
