"""Steps of several kinds together, through the command, on documents whose fate is known."""

import gzip
import json
import re
from collections import Counter

import pytest

from data_prep import curate, report
from galen.errors import DataError, GalenError
from tests.data_prep.documents import distinct
from tests.data_prep.material import read_records


@pytest.fixture
def corpus(tmp_path):
    """Makes a corpus from lists of records, one list a source, in two files each."""

    def make(steps, output="corpus", options=(), **sources):
        lines = []
        for name, records in sources.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            half = len(records) // 2
            for number, part in enumerate((records[:half], records[half:])):
                with gzip.open(folder / f"{number}.jsonl.gz", "wt") as file:
                    file.writelines(json.dumps({"metadata": {}} | record) + "\n" for record in part)
            lines += [
                f"- {{name: {name}, reader: records, path: {folder}/{number}.jsonl.gz}}"
                for number in range(2)
            ]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"output: {tmp_path / output}\nsplit: {{train: 1, validation: 0, test: 0}}\nsteps:"
            f" {steps}\nsources:\n" + "\n".join(lines)
        )
        curate.main([str(recipe), "--workers", "2", *options])
        return tmp_path / output

    return make


@pytest.mark.slow
def test_all_steps_together_are_accounted_for_shuffled_and_reported(corpus, tmp_path):
    questions, more = tmp_path / "questions.jsonl", tmp_path / "more.jsonl"
    for path, number in ((questions, 3), (more, 5)):
        path.write_text(json.dumps({"id": "q", "question": distinct(number)}) + "\n")
    records = [{"id": f"o{n}", "text": f"It was {distinct(n)} and that"} for n in range(40)]
    steps = f"""
- {{step: length, min_words: 5}}
- exact_dedup
- {{step: decontaminate, eval_datasets: [{questions}]}}
- minhash_dedup
- {{step: decontaminate, eval_datasets: [{more}], action: report}}
- {{step: mixture, weights: {{b: 0.5, c: 2}}}}
"""
    sources = {
        "a": [*records[:16], {"id": "s", "text": "short"}],
        "b": records[14:30],
        "c": records[30:],
    }
    options = ["shuffle.seed=7", "save_excluded=true", "--workers", "1"]
    folder = corpus(steps, options=options, **sources)
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["read"] == 43 == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"]["decontaminate: in questions.jsonl"] == 1
    assert counts["dropped"]["exact_dedup: same id"] == 2
    assert counts["extra_repeats"] == 10
    for source in counts["sources"].values():
        assert source["read"] == sum(source.values()) - source["read"]
    written = read_records(folder / "train")
    assert Counter(record["id"] for record in written)["o35"] == 2
    assert [record["id"] for record in written] != sorted(record["id"] for record in written)
    dropped = [
        line
        for path in (folder / "excluded").rglob("*.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert len(dropped) == sum(counts["dropped"].values())
    matched_items = [json.loads(line) for line in (folder / "contamination_items.jsonl").open()]
    assert [(item["file"], item["action"]) for item in matched_items] == [
        ("questions.jsonl", "dropped"),
        ("more.jsonl", "report"),
    ]
    again = corpus(steps, "again", options=[*options[:2], "shuffle.bucket_megabytes=1"], **sources)
    assert {p.name: p.read_bytes() for p in (again / "train").iterdir()} == {
        p.name: p.read_bytes() for p in (folder / "train").iterdir()
    }

    report.main([str(folder)])
    html = (folder / "report.html").read_text()
    assert html.count("<svg") == 1  # of lengths; no record has a year
    assert "<title>Corpus</title>" in html
    assert re.search(r'decontaminate<div[^>]*></div></th><td class="figure">1</td>', html)
    assert "questions.jsonl item <code>q</code>" in html
    questions.write_text(json.dumps({"id": "q", "question": distinct(4)}) + "\n")
    with pytest.raises(DataError, match=r"belongs to another run \(files\..*questions\.jsonl: "):
        corpus(steps, options=options, **sources)


def test_a_report_without_texts(corpus, tmp_path):
    """As for clinical notes.

    The metadata keys left out are reported, and that no step makes notes anonymous.
    """
    notes = [
        {
            "id": f"n{n}",
            "text": f"Jane Roe{n} was seen, +41 44 555 01 23, a@b.org.",
            "patient": "Roe",
        }
        for n in range(9)
    ]
    folder = corpus(
        "[{step: pii, phones: true}, {step: length, min_words: 50}]",
        options=["split.train=1"],
        a=notes,
        b=[{"id": "k", "text": distinct(1)}],
    )
    report.main([str(folder)])
    html = (folder / "report.html").read_text()
    assert "This is not de-identification" in html
    assert "Jane Roe" in html
    assert "9 records with the column patient, which is not stored" in html
    report.main([str(folder), "--no-samples"])
    html = (folder / "report.html").read_text()
    assert "Jane" not in html and "Left out on request." in html
    folder = corpus("[exact_dedup]", "silent", options=["report.samples=false"], a=notes)
    report.main([str(folder)])
    for name in ("report.html", "statistics.json"):
        assert "Jane" not in (folder / name).read_text()
    (folder / "duplicates.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"duplicates\.jsonl: Expecting property name"):
        report.main([str(folder)])
    for damage, expected_message in (
        ("{", r"statistics\.json is not JSON"),
        ('{"counts": 3}', "the files of .* are damaged: "),
    ):
        (folder / "statistics.json").write_text(damage)
        with pytest.raises(DataError, match=expected_message):
            report.main([str(folder)])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[{step: language_id, languages: [eng]}]", "language_id: eng cannot be identified"),
        ("[{step: decontaminate, eval_datasets: [nowhere.jsonl]}]", "nowhere.jsonl does not exist"),
        ("[language_id, {step: medical, keywords: nowhere}]", "nowhere holds no lists of keywords"),
        (
            "[{step: mixture, upsample: {reference_date: soon}}]",
            "steps.0.upsample.reference_date: Input should be a valid date",
        ),
        (
            "[{step: language, languages: [eng, english]}]",
            "language: languages: english is not a language code",
        ),
    ],
)
def test_files_of_steps_are_checked_before_anything_is_read(corpus, tmp_path, steps, message):
    with pytest.raises(GalenError, match=message):
        corpus(steps, a=[{"id": "1", "text": "One."}, {"id": "2", "text": "Two."}])
    assert not (tmp_path / ".corpus.partial").exists()


def test_report_of_a_folder_that_is_no_corpus(tmp_path):
    with pytest.raises(DataError, match="cannot read the manifest"):
        report.main([str(tmp_path)])
