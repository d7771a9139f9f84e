import json
import logging
from collections import Counter

import orjson
import pytest

from data_prep import curate, mesh_questions
from data_prep.mesh.companions import Companions
from data_prep.mesh.headings import CHECK_TAGS, is_in_text, topics, words
from data_prep.mesh.questions import make_question
from galen.errors import DataError, UsageError
from tests.data_prep.material import many_records, read_records, write_medline


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_medline(folder / "raw/a.xml", many_records(1, 400))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"output: {folder / 'corpus'}\nsources: [{{reader: medline, path: {folder / 'raw'}}}]\n"
    )
    curate.main(
        [str(recipe), "split.train=0.6", "split.validation=0.1", "split.test=0.3", "--workers", "1"]
    )
    return folder / "corpus"


def ask(corpus, output, *options, split="train"):
    mesh_questions.main(
        [
            "--corpus",
            str(corpus),
            "--split",
            split,
            "--output",
            str(output),
            "--neighbors",
            "6",
            *options,
        ]
    )
    return [orjson.loads(line) for line in output.read_bytes().splitlines()]


def test_questions_are_about_their_records(corpus, tmp_path):
    records = {record["id"]: record for record in read_records(corpus / "train")}
    questions = ask(corpus, tmp_path / "q.jsonl")
    assert len(questions) == len({question["pmid"] for question in questions}) > 150
    for question in questions:
        record = records[question["pmid"]]
        every, major = topics(record)
        options = question["options"]
        assert list(options) == ["A", "B", "C", "D"] and len(set(options.values())) == 4
        assert options[question["answer"]] in major
        assert all(
            option not in every
            for letter, option in options.items()
            if letter != question["answer"]
        )
        assert not set(options.values()) & CHECK_TAGS
        assert question["context"] == record["text"]
    answers = Counter(question["answer"] for question in questions)
    assert min(answers.values()) > 0.15 * len(questions)


def test_splits_share_nothing_and_the_order_does_not_matter(corpus, tmp_path):
    train, test = ask(corpus, tmp_path / "a.jsonl"), ask(corpus, tmp_path / "b.jsonl", split="test")
    assert not {question["pmid"] for question in train} & {question["pmid"] for question in test}
    few = ask(corpus, tmp_path / "c.jsonl", "--count", "20")
    assert few == train[:20]
    assert ask(corpus, tmp_path / "d.jsonl", "--seed", "1") != train


def test_context_is_cut_between_words(corpus, tmp_path):
    for question in ask(corpus, tmp_path / "q.jsonl", "--max-context-words", "5"):
        assert question["context"] == f"Report number {question['pmid']}.\n\nFindings of"


def record(text, *majors, others=()):
    mesh = [{"ui": "", "name": name, "major": True} for name in majors] + [
        {"ui": "", "name": name, "major": False} for name in others
    ]
    return {"id": "1", "text": text, "metadata": {"pmid": "1", "mesh": mesh}}


def test_answers_that_are_not_in_the_text_are_preferred():
    lists = [[f"Heading {n}", f"Heading {m}"] for n in "abcdefgh" for m in "abcdefgh" if n != m]
    companions = Companions((names, names) for names in lists)
    asked = make_question(
        record("About heading a and heading c.", "Heading a", "Heading b"), companions, 0, None, 7
    )
    assert asked["options"][asked["answer"]] == "Heading b"
    assert asked["literal"] is False
    assert "Heading c" not in asked["options"].values()  # nor may a wrong option be in it
    literal = make_question(record("About heading a.", "Heading a"), companions, 0, None, 7)
    assert literal["literal"] is True
    assert make_question(record("None.", "Unknown"), companions, 0, None, 7) is None


def test_companions_keep_the_same_company():
    groups = [["Heart", "Aorta", "Valve"], ["Bone", "Joint", "Spine"]]
    # never two of a group together
    lists = [[group[n % 3], f"{group[0]} sign {n % 4}"] for n in range(60) for group in groups]
    companions = Companions((names, names) for names in lists)
    assert set(companions.nearest("Heart", 2, without=())) == {"Aorta", "Valve"}
    assert companions.nearest("Heart", 1, without=["Aorta"]) == ["Valve"]


def test_words():
    assert is_in_text("Lung Neoplasms", words("A neoplasm of both lungs."))
    assert not is_in_text("Carcinoma, Hepatocellular", words("Hepatocellular tumour."))


def test_finished_and_bad_input(corpus, tmp_path, capsys, caplog):
    output = tmp_path / "q.jsonl"
    ask(corpus, output)
    before = output.read_bytes()
    capsys.readouterr()
    caplog.set_level(logging.INFO)
    ask(corpus, output)
    assert "q.jsonl is already complete" in caplog.text
    assert capsys.readouterr().out == ""
    with pytest.raises(DataError, match="seed"):
        ask(corpus, output, "--seed", "4")
    assert output.read_bytes() == before
    with pytest.raises(DataError, match="manifest"):
        ask(tmp_path, tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match="--count 0"):
        ask(corpus, tmp_path / "r.jsonl", "--count", "0")
    assert not (tmp_path / "r.jsonl").exists()
    assert json.loads((tmp_path / "q.manifest.json").read_text())["counts"]["questions"] == len(
        before.splitlines()
    )


def test_rare_headings_are_skipped_and_counted(corpus, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    every = ask(corpus, tmp_path / "a.jsonl", "--min-records", "1")
    assert "skipped" not in caplog.text
    majors = Counter()
    for record in read_records(corpus / "train"):
        majors.update(topics(record)[1])
    minimum = sorted(majors.values())[len(majors) // 2] + 1
    rare = {name for name, count in majors.items() if count < minimum}
    few = ask(corpus, tmp_path / "b.jsonl", "--min-records", str(minimum))
    message = (
        f"{len(rare)} of {len(majors)} MeSH headings are skipped: each is a major topic of fewer"
        f" than {minimum} training records (--min-records)"
    )
    assert message in caplog.text
    options = {option for question in few for option in question["options"].values()}
    assert len(few) < len(every) and not options & rare
    with pytest.raises(DataError, match=rf"{len(majors)} of {len(majors)} MeSH headings are skip"):
        ask(corpus, tmp_path / "c.jsonl", "--min-records", "100000")
