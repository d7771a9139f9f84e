import json

import pytest

from finetune.config.recipe import Data, Source
from finetune.data import training_data
from galen.errors import DataError, UsageError


@pytest.fixture
def mmedbench(tmp_path):
    """Four English questions in MMedBench's layout, the last without a rationale."""
    path = tmp_path / "English.jsonl"
    with path.open("w") as file:
        for number in range(4):
            record = {
                "question": f"What is it in case {number}?",
                "options": {"A": "a", "B": "b", "C": "c", "D": "d", "E": "e"},
                "answer_idx": "B",
                "rationale": "Because." if number < 3 else "",
                "human_checked": True,
                "human_check_passed": True,
            }
            file.write(json.dumps(record) + "\n")
    return path


def test_each_question_comes_in_each_form(mmedbench):
    source = Source(
        set="mmedbench", source=str(mmedbench), templates=["mmedbench", "mmedbench_rationale"]
    )
    data = training_data.read(Data(train=[source]))
    assert [item.template for item in data.train].count("mmedbench") == 4
    assert [item.template for item in data.train].count(
        "mmedbench_rationale"
    ) == 3 and data.without_rationale == 1
    assert data.files == [mmedbench]


def test_both_forms_of_a_question_fall_on_one_side(mmedbench):
    source = Source(
        set="mmedbench", source=str(mmedbench), templates=["mmedbench", "mmedbench_rationale"]
    )
    data = training_data.read(Data(train=[source], validation_fraction=0.5))
    assert not {item.record.id for item in data.train} & {
        item.record.id for item in data.validation
    }


def test_what_is_in_a_test_set_is_excluded(mmedbench, tmp_path):
    test = tmp_path / "test.jsonl"
    options = {"A": "e", "B": "a", "C": "b", "D": "c", "E": "d"}
    test.write_text(
        json.dumps(
            {"id": "x", "question": "what is it in case 2", "options": options, "answer": "A"}
        )
        + "\n"
    )
    source = Source(
        set="mmedbench", source=str(mmedbench), templates=["mmedbench", "mmedbench_rationale"]
    )
    data = training_data.read(Data(train=[source], decontaminate_against=[str(test)]))
    assert len(data.train) == 5 and {item.record.id for item in data.train} == {
        f"mmedbench/English:{n}" for n in (1, 2, 4)
    }
    (found,) = data.contaminated
    assert (found["document"], found["file"], found["item"]) == (
        "mmedbench/English:3",
        "test.jsonl",
        "x",
    )
    assert test in data.files


def test_bioinstructqa_comes_by_corpus_and_without_its_test_questions(tmp_path):
    """Its files have all corpora together, in one layout for training, validation and tests."""
    corpora = ["MedQA", "MedQA-5_options", "PubMedQA"]
    for split, numbers in (("train", range(6)), ("test", range(5, 7))):
        records = [
            {
                "identifier": f"{split}-{number}",
                "corpus_name": corpora[number % 3],
                "context": None,
                "task_type": "MCQA",
                "question": (
                    f"What is found in case {number} of this series of patients seen last year?"
                ),
                "options": {"A": "x", "B": "y"},
                "correct_answer_letter": "B",
                "classes": ["A", "B"],
            }
            for number in numbers
        ]
        (tmp_path / f"overall_{split}+prompt.json").write_text(json.dumps(records))
    train = Source(
        set="biomistral", source=str(tmp_path / "overall_train+prompt.json"), subjects=["PubMedQA"]
    )
    test = Source(set="biomistral", source=str(tmp_path / "overall_test+prompt.json"))
    data = training_data.read(
        Data(train=[train], decontaminate_against=[test], protocol="biomistral")
    )
    assert [item.record.id for item in data.train] == ["biomistral/train-2"]
    assert [finding["item"] for finding in data.contaminated] == ["biomistral/test-5"]


def test_ids_can_be_excluded(question_file, tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps({"q1": "", "q3": ""}))
    data = training_data.read(
        Data(train=[Source(source=str(question_file), exclude_ids=str(tmp_path / "ids.json"))])
    )
    assert len(data.train) == 38 and {"q1", "q3"}.isdisjoint(item.record.id for item in data.train)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Source(set="mmedbank", source="x"), UsageError, "did you mean 'mmedbench'"),
        (Source(source="x", templates=["mmedbenchs"]), UsageError, "did you mean 'mmedbench'"),
        ("missing.jsonl", DataError, "there is no file missing.jsonl"),
    ],
)
def test_mistakes_are_reported(source, error, message):
    with pytest.raises(error, match=message):
        training_data.read(Data(train=[source]))


def test_training_and_validation_share_nothing(question_file):
    with pytest.raises(DataError, match="is in both"):
        training_data.read(Data(train=str(question_file), validation=str(question_file)))
    with pytest.raises(DataError, match="is in two training files"):
        training_data.read(Data(train=[str(question_file)] * 2))


def test_when_all_records_are_test_questions_that_is_reported(question_file):
    with pytest.raises(DataError, match="no record is left to train on: 40 are in test sets"):
        training_data.read(
            Data(
                train=str(question_file),
                validation_fraction=0.2,
                decontaminate_against=[str(question_file)],
            )
        )
