"""A corpus of several formats in which something is broken everywhere."""

import gzip
import json
import shutil
from collections import Counter

import pytest

from data_prep import curate
from data_prep.curation.input_files import InputFile, split_into_tasks
from data_prep.curation.quarantine import check_quarantine
from data_prep.curation.recipe import CorpusRecipe, Source
from data_prep.readers import READERS
from galen import recipe, recipe_help
from galen.errors import DataError, UsageError
from tests.data_prep.material import many_records, read_records, write_medline
from tests.data_prep.readers.test_jats import FIXTURE


@pytest.fixture
def recipe_file(tmp_path):
    raw = tmp_path / "raw"
    write_medline(raw / "medline/a.xml.gz", many_records(1, 40))
    broken = write_medline(raw / "medline/b.xml", many_records(100, 40))
    broken.write_bytes(broken.read_bytes()[:9000])
    (raw / "jats").mkdir()
    shutil.copy(FIXTURE, raw / "jats/a.nxml")
    (raw / "jats/b.nxml").write_bytes(FIXTURE.read_bytes()[:2000])
    (raw / "hub").mkdir()
    lines = [json.dumps({"text": f"Document {n} of the hub.", "id": f"h{n}"}) for n in range(20)]
    (raw / "hub/a.jsonl.gz").write_bytes(
        gzip.compress("\n".join([*lines[:10], "{broken", *lines[10:]]).encode())
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'corpus'}\nsplit: {{train: 1, validation: 0, test: 0}}\nsteps:"
        " [abstract, retraction, copyright, exact_dedup]\nsources:\n- {reader: medline, path:"
        f" {raw / 'medline'}}}\n- {{reader: jats, path: {raw / 'jats'}, options: {{citations:"
        f" drop}}}}\n- {{reader: records, path: 'file://{raw / 'hub'}'}}\n"
    )
    return recipe


def test_separators_of_lines_in_a_bad_record(tmp_path):
    (tmp_path / "quarantine").mkdir()
    bad = {
        "file": "a.jsonl",
        "position": "line 1",
        "reason": "not JSON",
        "detail": "broken",
        "sample": "one\u2028two\x85",
    }
    (tmp_path / "quarantine/00000.jsonl").write_text(
        json.dumps(bad, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    counts = Counter({"total": 1, "dropped_quarantined, not JSON": 1, "input_files": 1})
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: broken"):
        check_quarantine(counts, 0, tmp_path)


def test_runs_resume_with_a_higher_error_rate(recipe_file, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    with pytest.raises(
        DataError,
        match=r"2 of \d+ records and 1 of 5 files cannot be read, more than max_error_rate=0.001",
    ) as error:
        curate.main([str(recipe_file), "--workers", "2"])
    assert "b.xml" in str(error.value)
    assert not (tmp_path / "corpus").exists()
    done = tmp_path / ".corpus.partial/log/read/completions/00000"
    assert done.exists()
    capsys.readouterr()
    curate.main(
        [str(recipe_file), "--workers", "2", "max_error_rate=0.5", f"output={tmp_path / 'corpus'}"]
    )
    assert "resuming" in caplog.text, "allowed without reading again"
    records = read_records(tmp_path / "corpus/train")
    ids = [record["id"] for record in records]
    assert ids[:40] == [str(n) for n in range(1, 41)]
    assert {"PMC12345", "h0", "h19"} <= set(ids)
    article = next(record for record in records if record["id"] == "PMC12345")
    assert "First sentence goes on, see" in article["text"]
    counts = json.loads((tmp_path / "corpus/manifest.json").read_text())["counts"]
    assert (counts["quarantined"], counts["broken_files"]) == (2, 1)
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    bad = [
        json.loads(line) for line in (tmp_path / "corpus/quarantine.jsonl").read_text().splitlines()
    ]
    assert [(entry["file"].rsplit("/", 1)[-1], entry["reason"]) for entry in bad] == [
        ("b.xml", "broken file"),
        ("b.nxml", "broken XML"),
        ("a.jsonl.gz", "not JSON"),
    ]
    assert (
        bad[0]["position"]
        == f"after record {sum(100 <= int(name) < 140 for name in ids if name.isdecimal())}"
    )
    assert bad[2]["position"].startswith("line 11, byte ")


def test_tasks_do_not_depend_on_workers_and_small_files_share_one():
    def file(reader, path, size, **options):
        return InputFile(reader, path, size, READERS[reader].Options(**options))

    small = [file("jats", f"{n}.nxml", 10) for n in range(501)]
    large = [
        file("jats", "x.tar.gz", 2**30),
        file("medline", "a.xml", 5),
        file("medline", "b.xml", 5),
    ]
    other = [file("jats", "y.nxml", 5, citations="drop"), file("jats", "z.nxml", 5)]
    sizes = [len(task) for task in split_into_tasks([*small, *large, *other], ["jats"])]
    assert sizes == [500, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("reader", READERS)
def test_a_source_has_the_options_of_its_reader_alone(reader):
    source = Source(reader=reader, path="raw", options={"language": "de"})
    assert type(source.options) is READERS[reader].Options
    assert type(Source(reader=reader, path="raw").options) is READERS[reader].Options


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{reader: jats, path: raw, options: {table_body: true}}",
            "sources.0.options.table_body: the reader 'jats' has no option 'table_body'; did you"
            " mean 'table_bodies'?",
        ),
        (
            "{reader: medline, path: raw, options: {citations: drop}}",
            "sources.0.options.citations: the reader 'medline' has no option 'citations'; known:"
            " language, license, max_record_bytes, max_record_seconds, max_record_memory",
        ),
        (
            "{reader: jats, path: raw, options: {citations: out}}",
            "sources.0.options.citations: Input should be 'bib_ref', 'marker' or 'drop'",
        ),
        (
            "{reader: medlin, path: raw, options: {citations: drop}}",
            "sources.0.reader: unknown reader 'medlin'; did you mean 'medline'?",
        ),
    ],
)
def test_an_option_that_the_reader_does_not_know_is_refused(source, message, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output: out\nsources:\n- {source}\n")
    with pytest.raises(UsageError) as caught:
        recipe.load(CorpusRecipe, path)
    assert str(caught.value) == f"{path}, line 3: {message}"


def test_the_recipe_with_options_of_readers_is_written_and_read():
    sources = [Source(reader="records", path="raw", options={"text_key": "content"})]
    corpus = CorpusRecipe(output="out", sources=sources)
    assert recipe.to_dict(corpus)["sources"][0]["options"]["text_key"] == "content"
    assert "  jats, s2orc, tei:\n        citations " in recipe_help.describe(CorpusRecipe)
