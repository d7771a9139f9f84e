"""The recipes of the three published corpora, run end to end on small dumps.

The dumps have the published layouts.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from data_prep import curate
from tests.conftest import ROOT
from tests.data_prep import dumps
from tests.data_prep.material import read_records, write_lines

QUESTION = (
    "Which of the following findings on the admission of a sailor with scurvy is the least likely"
    " one to be seen by his physician?"
)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """The folder `raw` of the recipes, in the working directory; recipes keep their paths."""
    monkeypatch.chdir(tmp_path)
    write_lines(
        tmp_path / "raw/evaluation/medqa/test.jsonl",
        [{"id": "7", "question": QUESTION, "options": {"A": "One.", "B": "Two."}}],
    )
    return tmp_path / "raw"


def run(name, *overrides):
    """Run a recipe; return the counts of its manifest, checked for adding up, and its documents."""
    curate.main(
        [
            str(ROOT / f"examples/corpora/{name}.yaml"),
            "--executor",
            "local",
            "--workers",
            "2",
            *overrides,
        ]
    )
    folder = Path("corpus", name)
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    records = read_records(folder)
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert counts["kept"] == len({record["id"] for record in records}) == len(records)
    for source in counts["sources"].values():
        assert 2 * source["read"] == sum(source.values())
    assert (counts["quarantined"], counts["broken_files"]) == (0, 0)
    return counts, {record["id"]: record for record in records}


@pytest.mark.slow
def test_biomistral(raw):
    dumps.write_pmc(raw / "pmc_oa", QUESTION)
    counts, records = run(
        "biomistral_pmc", "split.train=0.8", "split.validation=0.1", "split.test=0.1"
    )
    assert counts["read"] == 34
    assert counts["dropped"] == {
        "license: CC-BY-NC not allowed": 1,
        "license: no license stated": 1,
        "minhash_dedup: near-duplicate": 1,
        "decontaminate: in test.jsonl": 1,
    }
    assert set(records) == {f"PMC{n}" for n in (*range(2, 31), 34)}


@pytest.mark.slow
def test_gap_replay(raw):
    dumps.write_pmc(raw / "pmc_oa", QUESTION)
    dumps.write_gap(raw)
    counts, records = run(
        "gap_replay", "steps.8.replay.replay=0.05", "steps.8.replay.code=0.02"
    )  # a share of 0.008 is less than a document
    read = {name: source["read"] for name, source in counts["sources"].items()}
    assert read == {
        "guidelines": 20,
        "papers": 20,
        "pmc": 35,
        "abstracts": 48,
        "replay": 18,
        "code": 8,
    }
    dropped = counts["dropped"]
    taken = dropped.pop("mixture: not sampled")
    assert dropped == {
        "reader: superseded by a later version": 1,
        "language_id: other language (fr)": 1,
        "length: too short": 1,
        "dedup_by_id: in a preferred source": 15,
        "minhash_dedup: near-duplicate": 1,
        "decontaminate: in test.jsonl": 1,
    }
    kept_by_source = Counter({name: source["kept"] for name, source in counts["sources"].items()})
    assert (
        kept_by_source["guidelines"],
        kept_by_source["papers"],
        kept_by_source["pmc"],
        kept_by_source["abstracts"],
    ) == (20, 20, 33, 30)
    assert 0 < kept_by_source["replay"] < 18
    assert 0 < kept_by_source["code"] < 8
    assert kept_by_source["replay"] + kept_by_source["code"] + taken == 26
    assert records["9000"]["text"].startswith("Abstract 0, corrected.")


@pytest.mark.slow
def test_mmedc(raw):
    dumps.write_mmedc(raw)
    counts, records = run("mmedc", "split.train=0.9", "split.validation=0.05", "split.test=0.05")
    read = {name: source["read"] for name, source in counts["sources"].items()}
    assert read == {"culturax": 385, "textbooks": 1, "websites": 20, "small_sets": 20}
    dropped = counts["dropped"]
    repetitive = sum(
        dropped.pop(reason) for reason in list(dropped) if reason.startswith("repetition")
    )
    assert repetitive <= 3, "texts by chance"
    assert dropped == {"language_id: other language (it)": 5, "medical: too few medical terms": 20}
    assert counts["changed"] == {"line_dedup: documents": 19}
    languages = Counter(record["metadata"]["text_language"] for record in records.values())
    expected = Counter({"en": 61, "fr": 60, "es": 80, "ru": 60, "zh": 70, "ja": 70})
    assert (expected - languages).total() == repetitive
    assert not languages - expected
    (book,) = (record["text"] for name, record in records.items() if name.startswith("book.pdf"))
    assert "Index" not in book
