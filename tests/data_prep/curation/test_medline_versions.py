"""The last version of a PMID wins over all files, and deletions are applied."""

import json
import random

import numpy as np
import pytest

from data_prep import curate
from data_prep.curation.input_files import InputFile
from data_prep.curation.medline_versions import (
    EVENT,
    VersionResolver,
    VersionWriter,
    event_key,
    resolve_versions,
)
from data_prep.curation.source_reader import SourceFiles
from data_prep.readers.common_options import ReaderOptions
from data_prep.readers.medline import DELETED, KEEP, SUPERSEDED
from data_prep.readers.records import RecordsReader
from tests.data_prep.material import read_records, record_xml, write_medline


def rows(*events):
    """(PMID, version, is deletion) as rows."""
    return np.array(
        [(event_key(str(pmid), str(version)), deletion) for pmid, version, deletion in events],
        dtype=EVENT,
    )


def test_rules():
    events = [
        (1, 1, False),
        (2, 1, False),
        (1, 1, False),
        (3, 2, False),
        (3, 1, False),
        (2, 1, True),
        (4, 1, True),
        (4, 1, False),
    ]
    decisions = resolve_versions(rows(*events)).tolist()
    assert decisions[:5] == [SUPERSEDED, DELETED, KEEP, KEEP, SUPERSEDED]
    assert decisions[7] == KEEP, "a record behind its deletion is back"
    assert resolve_versions(rows((5, 1, False), (5, 2, False), (5, 2, True))).tolist()[:2] == [
        KEEP,
        DELETED,
    ], "deleting a version leaves the one before"
    assert resolve_versions(np.zeros(3, dtype=EVENT)).tolist() == [KEEP] * 3, (
        "what is no number is left alone"
    )
    assert resolve_versions(np.zeros(0, dtype=EVENT)).tolist() == []


def expected(events):
    """The same rules, one event after the other."""
    state, decisions = {}, [SUPERSEDED] * len(events)
    for row, (pmid, version, deletion) in enumerate(events):
        held = state.setdefault(pmid, {}).setdefault(version, [])
        if deletion:
            held.clear()
            held.append("deleted")
        else:
            held[:] = [row]
    for versions in state.values():
        alive = {version: held[0] for version, held in versions.items() if held[0] != "deleted"}
        if alive:
            decisions[alive[max(alive)]] = KEEP
    for row, (pmid, version, _) in enumerate(events):
        if state[pmid][version] == ["deleted"]:
            decisions[row] = DELETED
    return decisions


@pytest.mark.parametrize("bucket_rows", [7, 10**6])
def test_against_one_after_the_other(tmp_path, bucket_rows):
    draw = random.Random(5)
    events = [
        (draw.randint(1, 60), draw.choice([1, 1, 1, 2]), draw.random() < 0.2) for _ in range(300)
    ]
    for task in range(3):
        with (tmp_path / f"{task:05d}.npy").open("wb") as file:
            np.save(file, rows(*events[task * 100 : task * 100 + 100]))
    list(VersionResolver(str(tmp_path), str(tmp_path / "out"), 3, bucket_rows).run())
    actual = np.concatenate(
        [np.load(tmp_path / f"out/{task:05d}.npy") for task in range(3)]
    ).tolist()
    assert actual == [
        decision for decision, event in zip(expected(events), events, strict=True) if not event[2]
    ]


def test_files_of_the_root_folder():
    writer = VersionWriter([("/no-such-file.xml", ReaderOptions())], "memory://rows")
    with pytest.raises(FileNotFoundError) as error:
        list(writer.run())
    assert error.value.filename.lstrip("/") == "no-such-file.xml"
    sources = SourceFiles(
        [[InputFile("records", "/no-such-file.jsonl", 0, RecordsReader.Options())]], "memory://logs"
    )
    with pytest.raises(FileNotFoundError) as error:
        list(sources.run())
    assert error.value.filename.lstrip("/") == "no-such-file.jsonl"


def test_updates_in_a_corpus(tmp_path):
    """A later version counts even if a filter drops it: the old one does not reappear."""
    retracted = record_xml(2, abstract="Withdrawn.").replace(
        "<Language>",
        "<PublicationTypeList><PublicationType>Retracted"
        " Publication</PublicationType></PublicationTypeList><Language>",
    )
    write_medline(
        tmp_path / "raw/pubmed1.xml.gz",
        [record_xml(n, f"Old title {n}.", f"Old text {n}.") for n in range(1, 6)],
    )
    write_medline(
        tmp_path / "raw/pubmed2.xml",
        [
            record_xml(1, "New title 1.", "New text 1."),
            retracted,
            "<DeleteCitation><PMID>3</PMID></DeleteCitation>",
        ],
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"sources: [{{reader: medline, path: {tmp_path / 'raw'}}}]\nsplit: {{train: 1, validation:"
        " 0, test: 0}\n"
    )
    curate.main([str(recipe), f"output={tmp_path / 'corpus'}", "--workers", "1"])
    assert {record["id"]: record["text"] for record in read_records(tmp_path / "corpus")} == {
        "1": "New title 1.\n\nNew text 1.",
        "4": "Old title 4.\n\nOld text 4.",
        "5": "Old title 5.\n\nOld text 5.",
    }
    counts = json.loads((tmp_path / "corpus/manifest.json").read_text())["counts"]
    assert counts["read"] == 7
    assert counts["dropped"] == {
        "reader: superseded by a later version": 2,
        "reader: deleted by NLM": 1,
        "retraction: retracted article": 1,
    }
