"""The steps over all documents, through the command, on documents whose fate is known."""

import gzip
import json
import re
from collections import Counter

import pytest
from datatrove.data import Document

from data_prep import curate, report
from data_prep.filters.animal_only import AnimalOnlyFilter
from data_prep.filters.length import LengthFilter
from data_prep.filters.licence import LicenceFilter, family
from data_prep.filters.pii import PiiFormatter
from data_prep.filters.publication_type import PublicationTypeFilter
from data_prep.filters.quality import QualityFilter, RepetitionFilter
from data_prep.steps import Licence, Quality
from galen.errors import DataError, GalenError
from tests.data_prep.material import read_records

STORY = (
    "The patient came to the clinic in March with a cough that had lasted for six weeks, and the doctors there took an image of the chest, "
    "asked for two samples of sputum and sent him home with the advice to rest, to drink enough and to come back after the weekend."
)


def document(text="Some text.", **metadata):
    return Document(text=text, id="1", metadata=metadata)


@pytest.mark.parametrize(
    ("licence", "kept"),
    [
        ("CC-BY-4.0", True),
        ("CC BY 2.5", True),
        ("cc-by-sa", True),
        ("CC0-1.0", True),
        ("public-domain", True),
        ("CC-BY-NC-4.0", (False, "CC-BY-NC not allowed")),
        ("CC-BY-NC-ND-4.0", (False, "CC-BY-NC-ND not allowed")),
        ("other", (False, "a licence of its own")),
        ("", (False, "none stated")),
    ],
)
def test_licence(licence, kept):
    assert LicenceFilter(Licence().allowed).filter(document(licence=licence)) == kept


def test_licence_family():
    assert family("CC-BY-4.0") == family("cc by 3.0") == "CC-BY"
    assert LicenceFilter(["CC0"], "keep").filter(document()) is True


def test_publication_type_and_animals():
    assert PublicationTypeFilter(["editorial"]).filter(document(publication_types=["Journal Article", "Editorial"])) == (False, "Editorial")
    assert PublicationTypeFilter(["Comment"]).filter(document()) is True
    heading = {"Animals": {"name": "Animals"}, "Humans": {"name": "Humans"}}
    assert AnimalOnlyFilter().filter(document(mesh=[heading["Animals"]])) == (False, "animals without humans")
    assert AnimalOnlyFilter().filter(document(mesh=list(heading.values()))) is True
    assert AnimalOnlyFilter().filter(document(publication_types=["Observational Study, Veterinary"])) == (False, "veterinary")


def test_length_counts_chinese_too():
    assert LengthFilter(3).filter(document("two words")) == (False, "too short")
    assert LengthFilter(3).filter(document("重症肺炎患者")) is True
    assert LengthFilter(1, 3).filter(document("one two three four")) == (False, "too long")


def test_quality_keeps_figures_and_drops_rubbish():
    quality = QualityFilter(
        **{key: value for key, value in vars(Quality()).items() if key in Quality.__dataclass_fields__ and key not in ("step", "sources")}
    )
    assert quality.filter(document(STORY)) is True
    figures = (
        "The rate was 12.5 % (95 % CI 10.1-14.9) in group A and 8.3 % (95 % CI 6.2-10.4) in group B, a difference of 4.2 with P of 0.01."
    )
    assert quality.filter(document(figures)) is True
    assert quality.filter(document("1 2 3 4 5 6 7 8 9 of the 10")) == (False, "too few words with letters")
    assert quality.filter(document("Buy cheap shoes online today free shipping worldwide")) == (False, "too few stop words")
    assert quality.filter(document("重症肺炎患者在医院接受了两周的治疗。", text_language="zh")) is True
    assert RepetitionFilter().filter(document("The same line again.\n" * 10))[0] is False
    assert RepetitionFilter().filter(document(STORY)) is True


def test_turns_of_phrase_in_unspaced_scripts_are_no_repetition():
    """Six different statements of about 23 characters with the same ending: its sequences of five characters are not repeated text."""
    prose = (
        "高血圧では腎臓の働きが数年で低下することがある。糖尿病は目の血管にも大きな負担がかかることがある。"
        "薬を飲み忘れた翌朝に血圧が急に上がることがある。食塩を控えれば検査の数値が改善することがある。"
        "激しい運動の後は息苦しさを覚えることがある。眠れない夜が続くと頭が痛くなることがある。"
    )
    repetition = RepetitionFilter(top_ngram_factor=2)
    assert repetition.filter(document(prose, text_language="ja")) is True
    assert repetition.filter(document(prose, text_language="en")) == (False, "duplicated 5 n grams")
    assert repetition.filter(document("重症の肺炎で入院した。" * 9, text_language="ja"))[0] is False


def test_personal_data():
    changed = document("Write to jane.doe@hospital.org or call +41 21 693 11 11; ratio +1 2 of 8.8.8.8 at 10^5.")
    assert PiiFormatter(phones=True).filter(changed) is True
    assert changed.text == "Write to email@example.com or call [phone]; ratio +1 2 of 22.214.171.124 at 10^5."


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
            lines += [f"- {{name: {name}, reader: records, path: {folder}/{number}.jsonl.gz}}" for number in range(2)]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"output: {tmp_path / output}\nsplit: {{train: 1, validation: 0, test: 0}}\nsteps: {steps}\nsources:\n" + "\n".join(lines)
        )
        curate.main([str(recipe), "--workers", "2", *options])
        return tmp_path / output

    return make


def variant(number):
    """The same story with one word changed."""
    return STORY.replace("March", ["April", "May", "June"][number])


def other(number):
    words = [f"w{(number * 7919 + place * 104729) % 5003}" for place in range(60)]
    return " ".join(words)


def test_near_duplicates_leave_the_longest_and_are_listed(corpus):
    records = [{"id": f"v{n}", "text": variant(n)} for n in range(3)] + [{"id": f"o{n}", "text": other(n)} for n in range(9)]
    records.insert(5, {"id": "longest", "text": STORY + " Then he left."})
    folder = corpus("[near_duplicate]", a=records[:6], b=records[6:])
    assert {record["id"] for record in read_records(folder / "train")} == {"longest"} | {f"o{n}" for n in range(9)}
    (cluster,) = [json.loads(line) for line in (folder / "duplicates.jsonl").open()]
    assert (cluster["kept"], sorted(cluster["dropped"])) == ("longest", ["v0", "v1", "v2"])
    first = corpus("[{step: near_duplicate, keep: first}]", "first", a=records[:6], b=records[6:])
    assert {record["id"] for record in read_records(first / "train")} == {"v0"} | {f"o{n}" for n in range(9)}


def test_an_abstract_goes_when_its_full_text_is_in(corpus):
    full = [
        {"id": "f1", "text": "Full text one. " * 9, "pmcid": "PMC1", "doi": "https://doi.org/10.1/ABC"},
        {"id": "f2", "text": "Two.", "pmid": 2},
    ]
    short = [
        {"id": "s1", "text": "Abstract one.", "pmid": "1", "doi": "10.1/abc"},
        {"id": "s2", "text": "Also one.", "pmid": "1"},
        {"id": "s3", "text": "Abstract two.", "pmid": "2"},
        {"id": "s4", "text": "Abstract four.", "pmid": "4"},
        {"id": "s5", "text": "Abstract four, longer.", "pmid": "4"},
        {"id": "s6", "text": "Nameless."},
    ]
    sources = {
        name: [{**{k: r[k] for k in ("id", "text")}, "metadata": {k: v for k, v in r.items() if k not in ("id", "text")}} for r in records]
        for name, records in (("full", full), ("short", short))
    }
    folder = corpus("[{step: identifier, prefer: [full]}]", **sources)
    assert {record["id"] for record in read_records(folder / "train")} == {"f1", "f2", "s5", "s6"}
    dropped = json.loads((folder / "manifest.json").read_text())["counts"]["dropped"]
    assert dropped == {"identifier: again in its source": 1, "identifier: in a better source": 3}


def test_repeated_lines_are_cut_after_the_first(corpus):
    notice = "All rights of this notice are reserved."
    records = [{"id": str(n), "text": f"{other(n)}\n{notice}"} for n in range(6)]
    folder = corpus("[{step: repeated_lines, max_documents: 3}]", a=records)
    texts = [record["text"] for record in read_records(folder / "train")]
    assert sum(notice in text for text in texts) == 1
    assert [text.split("\n")[0] for text in texts] == [other(n) for n in range(6)]


def test_repeated_sentences_are_cut_out_of_their_lines(corpus):
    notice = "This text does not replace your doctor."
    records = [{"id": str(n), "text": f"# Head\n\n{other(n)} ends. {notice} Case {n} is told."} for n in range(6)]
    folder = corpus("[{step: repeated_lines, max_documents: 3, unit: sentence}]", a=records)
    texts = [record["text"] for record in read_records(folder / "train")]
    assert texts == [f"# Head\n\n{other(n)} ends. {notice if n == 0 else ''}{' ' if n == 0 else ''}Case {n} is told." for n in range(6)]


def test_everything_together_is_accounted_for_shuffled_and_reported(corpus, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": "q", "question": other(3)}) + "\n")
    records = [{"id": f"o{n}", "text": f"It was {other(n)} and that"} for n in range(40)]
    steps = f"""
- {{step: length, min_words: 5}}
- duplicate
- {{step: decontaminate, against: [{questions}]}}
- near_duplicate
- {{step: mixture, weights: {{b: 0.5, c: 2}}}}
"""
    sources = {"a": [*records[:16], {"id": "s", "text": "short"}], "b": records[14:30], "c": records[30:]}
    options = ["shuffle.seed=7", "dropped=true", "--workers", "1"]
    folder = corpus(steps, options=options, **sources)
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["read"] == 43 == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"]["decontaminate: in questions.jsonl"] == 1
    assert counts["dropped"]["duplicate: same id"] == 2
    assert counts["extra_copies"] == 10
    for source in counts["sources"].values():
        assert source["read"] == sum(source.values()) - source["read"]
    written = read_records(folder / "train")
    assert Counter(record["id"] for record in written)["o35"] == 2
    assert [record["id"] for record in written] != sorted(record["id"] for record in written)
    dropped = [line for path in (folder / "dropped").rglob("*.gz") for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert len(dropped) == sum(counts["dropped"].values())
    again = corpus(steps, "again", options=[*options[:2], "shuffle.bucket_megabytes=1"], **sources)
    assert {p.name: p.read_bytes() for p in (again / "train").iterdir()} == {p.name: p.read_bytes() for p in (folder / "train").iterdir()}

    report.main([str(folder)])
    html = (folder / "report.html").read_text()
    assert html.count("<svg") == 4  # no record has a year
    assert re.search(r"<td>decontaminate</td><td class=\"n\">1</td>", html)
    assert "questions.jsonl item <code>q</code>" in html


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[{step: language_id, keep: [eng]}]", "language_id: eng cannot be identified"),
        ("[{step: decontaminate, against: [nowhere.jsonl]}]", "nowhere.jsonl does not exist"),
        ("[language_id, {step: medical, keywords: nowhere}]", "nowhere holds no lists of keywords"),
        ("[{step: mixture, upsample: {today: soon}}]", "'soon' is no date"),
        ("[{step: language, wanted: [eng, english]}]", "language: wanted: english is no code"),
    ],
)
def test_what_steps_need_is_checked_before_anything_is_read(corpus, tmp_path, steps, message):
    with pytest.raises(GalenError, match=message):
        corpus(steps, a=[{"id": "1", "text": "One."}, {"id": "2", "text": "Two."}])
    assert not (tmp_path / ".corpus.partial").exists()


def test_report_of_something_else(tmp_path):
    with pytest.raises(DataError, match="cannot read the manifest"):
        report.main([str(tmp_path)])
