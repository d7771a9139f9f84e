"""Question files damaged by hand and at random: questions, or one line that names the file.

Never a traceback.
"""

import gzip
import json
import random
import time

import pytest

from evaluation import question_sets
from evaluation.prompts.registry import TEMPLATES
from evaluation.question_sets import jsonl
from evaluation.question_sets.question import Question
from galen.errors import DataError, GalenError
from tests.evaluation.mutation import ROUNDS, damaged, replaced

FIVE = {"A": "Heart", "B": "Liver", "C": "Kidney", "D": "Rats", "E": "Mice"}
LIST = list(FIVE.values())
FEW = {
    "context": None,
    "question": "One?",
    "options": {"A": "x", "B": "y"},
    "correct_answer_letter": "B",
}
EXAM_ITEM = {
    "qid": "7",
    "qtext": "?",
    "ra": "3",
    "answers": [{"aid": n, "atext": f"Uno {n}"} for n in range(1, 5)],
    "image": "",
}
SAMPLES = {
    "galen": (
        "a.jsonl",
        {
            "id": "q1",
            "context": "c",
            "question": "?",
            "options": FIVE,
            "answer": "A,C",
            "language": "fr",
        },
    ),
    "medqa": (
        "a.jsonl",
        {
            "question": "?",
            "options": FIVE,
            "answer_idx": "A",
            "answer": "Heart",
            "meta_info": "step1",
        },
    ),
    "medmcqa": (
        "a.jsonl",
        {
            "id": "u",
            "question": "?",
            "opa": "a",
            "opb": "b",
            "opc": "c",
            "opd": "d",
            "cop": 2,
            "exp": "e",
            "subject_name": "s",
        },
    ),
    "pubmedqa": (
        "a.json",
        {
            "1": {
                "QUESTION": "?",
                "CONTEXTS": ["a", "b"],
                "final_decision": "yes",
                "LONG_ANSWER": "l",
            }
        },
    ),
    "mmlu": ("anatomy_test.csv", 'Which?,a,b,c,d,A\n"One, or\ntwo?",a,b,c,d,B\n'),
    "truthfulqa": (
        "a.jsonl",
        {
            "question": "?",
            "mc1_targets": {"choices": ["a", "b", "c"], "labels": [1, 0, 0]},
            "category": "Health",
        },
    ),
    "medxpertqa": (
        "a.jsonl",
        {
            "id": "M-1",
            "question": "?\nAnswer Choices: x",
            "options": FIVE,
            "label": "B",
            "body_system": "s",
        },
    ),
    "mmedbench": (
        "French.jsonl",
        {
            "question": "?",
            "options": FIVE,
            "answer_idx": "A,B",
            "rationale": "r",
            "human_check_passed": 1,
        },
    ),
    "frenchmedmcqa": (
        "a.json",
        [
            {
                "id": "f",
                "question": "?",
                "answers": {k.lower(): v for k, v in FIVE.items()},
                "correct_answers": ["a", "d"],
            }
        ],
    ),
    "igakuqa": (
        "a.jsonl",
        {
            "problem_id": "1",
            "problem_text": "?",
            "choices": LIST,
            "text_only": True,
            "answer": ["a"],
        },
    ),
    "rumeddanet": ("a.jsonl", {"pairID": "p", "context": "c", "question": "?", "answer": "да"}),
    "headqa": ("a.json", {"exams": {"e": {"name": "e", "category": "b", "data": [EXAM_ITEM]}}}),
    "biomistral": (
        "French-full.json",
        [
            {
                "identifier": "m",
                "corpus_name": "PubMedQA",
                "context_translated": "c",
                "question_translated": "?",
                "options_translated": FIVE,
                "correct_answer_letter": "A",
                "few_shot_samples[1]": [FEW],
            }
        ],
    ),
}


def encoded(file, content):
    if isinstance(content, str):
        return content.encode()
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def check(name, path):
    """Read a file; what comes can be asked, or the error is one line with the file's name."""
    try:
        found = question_sets.read(name, path)
    except GalenError as error:
        assert path.name in str(error) and "\n" not in str(error) and len(str(error)) < 1500, str(
            error
        )
        return None
    for item in found:
        texts = [
            item.id,
            item.question,
            item.context,
            item.subject,
            item.rationale,
            item.language,
            *item.options,
            *item.options.values(),
        ]
        assert isinstance(item, Question) and all(isinstance(text, str) for text in texts)
        assert (
            len(item.options) > 1 and item.question.strip() and item.answers <= item.options.keys()
        )
        for form in TEMPLATES.values():
            assert form(item).text
    return found


@pytest.mark.parametrize("name", question_sets.READERS)
def test_the_samples_are_read(name, tmp_path):
    file, content = SAMPLES[name]
    (tmp_path / file).write_bytes(encoded(file, content))
    assert check(name, tmp_path / file)


def test_random_damage(tmp_path):
    names = list(question_sets.READERS)
    for number in range(ROUNDS):
        draw = random.Random(number)
        name = names[number % len(names)]
        file, content = SAMPLES[name]
        if draw.random() < 0.6 and not isinstance(content, str):
            content = replaced(content, draw)
        content = encoded(file, content)
        if draw.random() < 0.5:
            content = damaged(content * draw.randint(1, 3), draw)
        if draw.random() < 0.2:
            file, content = "French.jsonl.gz", damaged(gzip.compress(content, mtime=0), draw)
        path = tmp_path / draw.choice([file, file, "other_test.csv"])
        path.write_bytes(content)
        try:
            check(name, path)
        except BaseException:
            print(f"input {number}: {name}, {path.name}: {content[:300]!r}")
            raise
        path.unlink()


def test_random_damage_to_parquet(tmp_path):
    import pyarrow
    from pyarrow import parquet

    for number in range(ROUNDS // 10):
        draw = random.Random(number)
        name = draw.choice([name for name in SAMPLES if name != "mmlu"])
        _, content = SAMPLES[name]
        record = content[0] if isinstance(content, list) else content
        record = replaced(record, draw)
        path = tmp_path / "part.parquet"
        try:
            parquet.write_table(pyarrow.Table.from_pylist([record]), path)
        except (pyarrow.ArrowException, OverflowError):
            continue
        if draw.random() < 0.5:
            path.write_bytes(damaged(path.read_bytes(), draw))
        try:
            check(name, path)
        except BaseException:
            print(f"input {number}: {name}: {record!r}")
            raise


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'Q,a,b,c,d,A\n"Q,a,b,c,d,B\nQ,a,b,c,d,C\n',
            r"a_test\.csv, line 2: a quote is opened here and not closed",
        ),
        (b'Q,a,b,c,d,A\nQ,a,b,c,d,"B', r"line 2: a quote is opened here and not closed"),
        (
            b'"Q,a,b,c,d,A\n' + b"Q,a,b,c,d,A\n" * 20_000,
            r"line 1: field larger than field limit .* is a quote not closed\?",
        ),
        (
            b"Q,a,b,c,d,A\nQ,a,b,c,d\n",
            r"line 2: six columns are wanted \(question, A, B, C, D, answer\), not 5",
        ),
        (
            b"Q,a,b,c,d,A\nQ\0,a,b,c,d,A\n",
            r"a_test\.csv cannot be read as a \.csv file of questions: line 2 is not UTF-8 text",
        ),
        ("Q,a,b,c,d,A\né,a,b,c,d,A\n".encode("cp1252"), r"line 2 is not UTF-8 text"),
        ("Q,a,b,c,d,A\n".encode("utf-16"), r"line 1 is not UTF-8 text"),
        (b"Q,a,b,c,d,E\n", r"line 1: key 'answer' must be an integer from 0 to 3, not 'E'"),
        (b"Q,a,b,c," + b"d" * 200_000 + b",A\n", r"line 1: field larger than field limit"),
    ],
)
def test_damaged_csv(tmp_path, content, message):
    (tmp_path / "a_test.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        question_sets.read("mmlu", tmp_path / "a_test.csv")


def test_csv_of_windows_and_with_line_breaks_stays(tmp_path):
    (tmp_path / "a_test.csv").write_bytes(
        '\ufeff"One, or\r\ntwo?",a,b,c,d,A\r\nQ,a,b,c,d,B'.encode()
    )
    found = question_sets.read("mmlu", tmp_path / "a_test.csv")
    assert [(item.question, item.answer) for item in found] == [
        ("One, or\r\ntwo?", "A"),
        ("Q", "B"),
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", b"[" * 100_000, r"a\.json is not JSON"),
        ("a.json", b'"text"', r"a\.json: a list or an object of records is wanted, not 'text'"),
        (
            "a.json",
            b'{"q1": [1]}',
            r"a\.json, record q1: a record must be a JSON object, not \[1\]",
        ),
        ("a.jsonl", b'{"a": ' * 100_000, r"a\.jsonl, line 1: not JSON"),
        ("a.jsonl", '{"question": "é"}'.encode("latin-1"), r"a\.jsonl, line 1: not JSON"),
        ("a.jsonl", '{"id": "1"}'.encode("utf-16"), r"a\.jsonl, line 1: not JSON"),
        (
            "a.jsonl",
            b'{"id": "\\ud800", "question": "?", "options": ["a", "b"], "answer": "A"}',
            r"a\.jsonl, line 1: not JSON",
        ),
    ],
)
def test_damaged_json(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        question_sets.read("galen", tmp_path / file)


def test_an_endless_line_is_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n" + b" " * 10**6))
    started = time.monotonic()
    with pytest.raises(DataError, match=r"a\.jsonl\.gz, line 2: longer than"):
        question_sets.read("galen", tmp_path / "a.jsonl.gz")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": 7}, {"id": "7"}),
        (
            {"options": ["x", "y", "z"], "answer": "B"},
            {"options": {"A": "x", "B": "y", "C": "z"}, "answer": "B"},
        ),
        ({"options": ["x", "y", "z"], "answer": "z"}, {"answer": "C"}),
        ({"answer": " no, never "}, {"answer": "B"}),
        ({"answer": ["C", "A"]}, {"answer": "A,C"}),
        (
            {"answer": ["No, never", "A"], "options": {"A": "Yes", "B": "No, never"}},
            {"answer": "A,B"},
        ),
        ({"options": {"A": "B", "B": "A"}, "answer": "A"}, {"answer": "A"}),
        ({"answer": "A, C"}, {"answer": "A,C"}),
        (dict.fromkeys(["context", "language", "rationale"]), {"context": "", "language": "en"}),
    ],
)
def test_lists_of_options_integer_ids_and_answers_as_text(tmp_path, changes, expected):
    record = {
        "id": "q",
        "question": "?",
        "options": {"A": "yes", "B": "no, never", "C": "maybe"},
        "answer": "A",
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record | changes) + "\n")
    [found] = question_sets.read("galen", tmp_path / "a.jsonl")
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": True}, "key 'id' must be a text, not True"),
        ({"answer": "perhaps"}, "key 'answer' is 'perhaps', which is none of the options A, B"),
        ({"answer": ["A", "perhaps"]}, "which is none of the options A, B"),
        ({"answer": []}, "which is none of the options A, B"),
        ({"answer": 0}, "key 'answer' must be a text, not 0"),
        ({"options": ["x"]}, "key 'options' must be an object or a list of at least two options"),
        ({"options": ["x"] * 27}, "key 'options' lists 27 options; 26 at most, or an object"),
        (
            {"options": ["O", "A", "B", "AB"]},
            "key 'answer' is 'A', which may be the letter of 'O' or another option's text",
        ),
        (
            {"options": ["a", "a"], "answer": "a"},
            "key 'answer' is 'a', which is the text of the options A and B; leave one of them out",
        ),
        ({"question": None}, "key 'question' must be a text, not null"),
        ({"options": None}, "key 'options' must be an object or .*, not null"),
        ({"options": ["x", 2]}, "in 'options': key 'B' must be a text, not 2"),
        ({"options": {"A,B": "x", "C": "y"}, "answer": "C"}, "names an option 'A,B'"),
    ],
)
def test_wrong_records_in_galens_layout(tmp_path, changes, message):
    (tmp_path / "a.jsonl").write_text(
        json.dumps(
            {"id": "q", "question": "?", "options": {"A": "x", "B": "y"}, "answer": "A"} | changes
        )
    )
    with pytest.raises(DataError, match=rf"a\.jsonl, line 1.*{message}"):
        question_sets.read("galen", tmp_path / "a.jsonl")


def test_blanks_at_the_ends_of_medqas_answer_text(tmp_path):
    record = {
        "question": "?",
        "options": {"A": " Aspirin ", "B": "Salt"},
        "answer": "Aspirin\u00a0 ",
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    assert question_sets.read("medqa", tmp_path / "a.jsonl")[0].answer == "A"


def test_a_text_of_two_options_is_no_answer_in_medqa_either(tmp_path):
    record = {"question": "?", "options": {"A": "Salt", "B": "Salt "}, "answer": "Salt"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"line 1: key 'answer' is the text of the options A and B"):
        question_sets.read("medqa", tmp_path / "a.jsonl")
