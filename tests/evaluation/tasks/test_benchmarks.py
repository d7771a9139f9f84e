"""Built-in task files on records in the layout of their authors."""

import csv
import json
from pathlib import Path

import pytest

from evaluation import question_sets
from evaluation.question_sets.reference_reader import ReferenceQuestion
from evaluation.scoring import answer_scores
from evaluation.tasks import task
from evaluation.tasks.generation import GenerationTask
from galen.errors import DataError

RECORDS = Path(__file__).with_name("records")


def write_csv(path: Path, records: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def test_medxpertqa_reads_the_authors_records():
    questions = question_sets.read("medxpertqa", RECORDS / "medxpertqa.jsonl")
    records = [json.loads(line) for line in (RECORDS / "medxpertqa.jsonl").open()]
    for question, record in zip(questions, records, strict=True):
        assert question.id == record["id"] and question.answer == record["label"][0]
        assert list(question.options) == list("ABCDEFGHIJ")
        assert list(question.options.values()) == [item["content"] for item in record["options"]]
        assert question.question == record["question"].split("\nAnswer Choices:")[0]
        assert question.subject == record["body_system"]


@pytest.mark.parametrize(
    ("name", "labels"), [("medbullets_op4", "ABCD"), ("medbullets_op5", "ABCDE")]
)
def test_medbullets(tmp_path, name, labels):
    options = {f"op{label.lower()}": f"text {label}" for label in labels}
    record = {"link": "u", "question": "Which drug?", **options}
    record |= {"answer_idx": "C", "answer": "text C", "explanation": "Because."}
    write_csv(tmp_path / "medbullets" / f"{name}.csv", [record])
    _, specification = task.load(name)
    [question] = specification.questions(tmp_path)
    assert question.options == {label: f"text {label}" for label in labels}
    assert (question.answer, question.rationale) == ("C", "Because.")


def afrimed(number: int, options: list[str], answer: str, **other: str) -> dict[str, str]:
    texts = {f"option{position}": text for position, text in enumerate(options, start=1)}
    record = {"sample_id": f"s{number}", "question_type": "mcq", "tier": "expert"}
    record |= {"question": "Which one?", "answer_options": json.dumps(texts)}
    record |= {"correct_answer": answer, "answer_rationale": "", "specialty": "Surgery"}
    return record | other


def test_afrimedqa_has_sets_of_answers_and_two_to_five_options(tmp_path):
    _, specification = task.load("afrimedqa")
    file = tmp_path / specification.file
    records = [
        afrimed(1, ["a", "b", "c", "d", "e"], "option1,option3"),
        afrimed(2, ["True", "False", "N/A", "N/A", "N/A"], "option2"),
        afrimed(3, ["a", "b", "c", "d", "N/A"], "option5"),  # the right option is missing
        afrimed(4, ["a", "b"], "option1", question_type="saq"),
        afrimed(5, ["a", "b"], "option1", tier="crowdsourced"),
        afrimed(6, ["a", "N/A"], "option1"),
        afrimed(7, ["a", "b"], ""),
        afrimed(8, [], "option1", answer_options="", question_type="consumer_queries"),
    ]
    write_csv(file, records)
    several, two = specification.questions(tmp_path)
    assert several.answer == "A,C" and list(several.options) == list("ABCDE")
    assert two.options == {"A": "True", "B": "False"} and two.answer == "B"
    assert two.subject == "Surgery"
    write_csv(file, [afrimed(1, [], "option1", answer_options="{")])
    with pytest.raises(DataError, match=r"line 2: key 'fields.filter' of .*afrimedqa.yaml"):
        specification.questions(tmp_path)


def test_medcalc_bench_scores_its_authors_explanations(tmp_path):
    _, specification = task.load("medcalc_bench")
    assert isinstance(specification, GenerationTask)
    file = tmp_path / specification.file
    file.parent.mkdir()
    file.write_bytes((RECORDS / "medcalc_bench.csv").read_bytes())
    questions = specification.questions(tmp_path)
    assert [question.id for question in questions] == ["1", "2", "3", "4"]
    for question in questions:
        assert isinstance(question, ReferenceQuestion)
        answer = json.dumps({"step_by_step_thinking": question.rationale, "answer": "?"})
        assert answer_scores.score(specification, question, answer).extracted is None
        for answer in (
            question.rationale,
            json.dumps({"step_by_step_thinking": "The answer is 1.", "answer": question.answer}),
        ):
            assert answer_scores.score(specification, question, answer).score == 1
    [decimal, *_] = questions
    assert answer_scores.score(specification, decimal, '{"answer": "475 msec"}').score == 1
    assert answer_scores.score(specification, decimal, '{"answer": "476 msec"}').score == 0
