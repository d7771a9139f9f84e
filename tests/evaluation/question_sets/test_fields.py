"""Task files with columns of their own, on records in published layouts and on tables."""

import dataclasses
import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from evaluation import question_sets
from evaluation.question_sets.question import Question
from evaluation.tasks import task
from galen.errors import DataError, GalenError, UsageError
from tests.evaluation.mutation import ROUNDS, replaced

FRENCHMEDMCQA = {
    "id": "230bac49b0fe863b772410bc8d01a025f63c3c999065480131d6334abd2efeff",
    "question": "Parmi les propositions suivantes, indiquer celle qui est exacte:",
    "answers": {"a": "Le suc gastrique", "b": "La bile", "c": "La salive", "d": "Le sang"},
    "correct_answers": ["c", "a"],
    "subject_name": "pharmacie",
    "nbr_correct_answers": 2,
}
FRENCHMEDMCQA_FIELDS = """
  id: id
  question: question
  options: answers
  labels: [A, B, C, D]
  answer: correct_answers
  language: fr
  subject: subject_name
  question_set: frenchmedmcqa
"""
PUBMEDQA = {
    "21645374": {
        "QUESTION": "Do mitochondria play a role in remodelling lace plant leaves?",
        "CONTEXTS": ["Programmed cell death.", "The leaves of the lace plant."],
        "final_decision": "maybe",
        "LONG_ANSWER": "They may.",
    }
}
PUBMEDQA_FIELDS = """
  question: QUESTION
  context: "{{ CONTEXTS | join('\\n') }}"
  fixed_options: [yes, no, maybe]
  answer: final_decision
  answer_format: text
  rationale: LONG_ANSWER
  question_set: pubmedqa
"""
STEM = {"n": 7, "stem": " Which? ", "o1": " one ", "o2": "two", "o3": "", "key": "2"}
FIELDS = """
  id: n
  question: stem
  options: [o1, o2, o3]
  answer: key
"""


@pytest.fixture
def load(tmp_path):
    """Return a function that writes records and a task file, and loads the task."""

    def load(fields, records, file="test.jsonl", more=""):
        path = tmp_path / file
        if file.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
        elif isinstance(records, str):
            path.write_text(records, encoding="utf-8")
        elif isinstance(records, dict):
            path.write_text(json.dumps(records), encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        text = f"kind: multiple_choice\nfile: {file}\n{more}fields:{fields}"
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        return task.load(str(tmp_path / "mine.yaml"))[1]

    return load


@pytest.fixture
def read(load, tmp_path):
    """Return a function that reads records with a task's fields, as plain questions."""

    def read(*arguments, **options):
        found = load(*arguments, **options).questions(tmp_path)
        names = [field.name for field in dataclasses.fields(Question)]
        return [Question(**{name: getattr(item, name) for name in names}) for item in found]

    return read


@pytest.mark.parametrize(
    ("name", "fields", "records", "file"),
    [
        ("frenchmedmcqa", FRENCHMEDMCQA_FIELDS, [FRENCHMEDMCQA], "test.jsonl"),
        ("pubmedqa", PUBMEDQA_FIELDS, PUBMEDQA, "ori_pqal.json"),
    ],
)
def test_fields_read_published_layouts_as_their_readers_do(
    read, tmp_path, name, fields, records, file
):
    assert read(fields, records, file) == question_sets.read(name, tmp_path / file)


@pytest.mark.parametrize("file", ["test.csv", "test.tsv", "test.jsonl", "test.parquet"])
def test_a_column_for_each_option_in_every_format(read, file):
    records = [STEM]
    if file.endswith((".csv", ".tsv")):
        separator = "," if file.endswith(".csv") else "\t"
        lines = (separator.join(map(str, cells)) for cells in (STEM, STEM.values()))
        records = "\ufeff" + "\n".join(lines) + "\n\n"
    # neither question nor options are stripped; a blank last column is no option
    assert read(FIELDS + "  answer_format: one_based_index\n", records, file) == [
        Question("7", "", " Which? ", {"A": " one ", "B": "two"}, "B")
    ]


def test_a_table_without_a_header(read):
    fields = FIELDS + "  answer_format: index\n  columns: [n, stem, o1, o2, o3, key]\n"
    [found] = read(fields, '7,"Which, ""if any""?",a,b,c,0\n', "test.csv")
    assert (found.question, found.answer) == ('Which, "if any"?', "A")


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ("options: o", {"o": ["x", "y"]}, {"A": "x", "B": "y"}),
        ("options: o", {"o": {"1": "x", "2": "y", "3": None}}, {"1": "x", "2": "y"}),
        (
            "options: o",
            {"o": [{"key": "a", "value": "x"}, {"key": "b", "value": "y"}]},
            {"a": "x", "b": "y"},
        ),
        ("options: {P: first, Q: o}", {"o": "y"}, {"P": "x", "Q": "y"}),
        ("options: '{{ o | fromjson }}'", {"o": '["x", 5]'}, {"A": "x", "B": "5"}),
        ("options: \"{{ o.split('|') }}\"", {"o": "x|y"}, {"A": "x", "B": "y"}),
        (
            "options: '{{ o.text }}'\n  labels: '{{ o.label }}'",
            {"o": {"text": ["x", "y"], "label": ["i", "ii"]}},
            {"i": "x", "ii": "y"},
        ),
        ("options: o\n  labels: ['1', '2']", {"o": ["x", "y"]}, {"1": "x", "2": "y"}),
    ],
)
def test_forms_of_options(read, options, values, expected):
    fields = f"\n  question: q\n  {options}\n  answer: first\n  answer_format: text\n"
    [found] = read(fields, [{"q": "?", "first": "x"} | values])
    assert found.options == expected and found.answer == next(iter(expected))
    assert found.id == "test:1"


@pytest.mark.parametrize(
    ("form", "answer", "expected"),
    [
        ("label", "B", "B"),
        ("label", " C, A ", "A,C"),
        ("label", ["C", "B"], "B,C"),
        ("text", "y, or z", "B"),
        ("text", [" x ", "y, or z"], "A,B"),
        ("index", 0, "A"),
        ("index", [2, "1"], "B,C"),
        ("one_based_index", "3", "C"),
    ],
)
def test_forms_of_answers(read, form, answer, expected):
    fields = f"\n  question: q\n  options: o\n  answer: a\n  answer_format: {form}\n"
    [found] = read(fields, [{"q": "?", "o": ["x", "y, or z", "w"], "a": answer}])
    assert found.answer == expected


def test_a_filter_and_splits_of_one_file(load, tmp_path, caplog):
    records = [
        {"q": f"{n}?", "o": ["x", "y"], "a": "A" if n else None, "part": "test" if n < 3 else "dev"}
        for n in range(5)
    ]
    fields = "\n  question: q\n  options: o\n  answer: a\n  split: part\n  filter: a is not none\n"
    found = load(fields, records, more="test_split: test\nfewshot_split: dev\n")
    with caplog.at_level("INFO"):
        assert [item.question for item in found.questions(tmp_path)] == ["1?", "2?"]
    # records of the other split are not reported
    assert "test.jsonl: 1 of 5 records skipped (no answer, or excluded by" in caplog.text
    assert [item.question for item in found.fewshot_candidates(tmp_path)] == ["3?", "4?"]


def test_an_unknown_split_names_those_of_the_file(load, tmp_path):
    record = {"q": "?", "o": ["x", "y"], "a": "A"}
    records = [record | {"part": name} for name in ("test", "dev")]
    fields = "\n  question: q\n  options: o\n  answer: a\n  split: part\n"
    for split, hint in (("tset", "did you mean 'test'"), ("held-out", "known: dev, test")):
        found = load(fields, records, more=f"test_split: {split}\n")
        with pytest.raises(DataError, match=f"no questions of the split '{split}'; {hint}"):
            found.questions(tmp_path)


def test_records_that_are_all_excluded_are_counted(read):
    fields = "\n  question: q\n  options: o\n  answer: a\n  filter: a == 'C'\n"
    with pytest.raises(DataError, match="all 2 records are excluded"):
        read(fields, [{"q": "?", "o": ["x", "y"], "a": "A"}] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stem", "steam"), r"'fields\.question' of .* no column 'steam'; did .*'stem'"),
        (("stem", "'{{ steam }}'"), r"fields\.question' of .*: 'steam' is undefined; defined: n,"),
        (("key", "'{{ 1 // 0 }}'"), r"fields\.answer' of .*: .*zero"),
        (("o3]", "o9]"), r"fields\.options' of .*: the record has no column 'o9'"),
        (("[o1, o2, o3]", "o1"), r"fields\.options' of .*: the column must hold a list or a"),
        (("[o1, o2, o3]", "[o1, o3]"), r"fields\.options' of .*: a question needs at least two"),
        (("[o1, o2, o3]", "[o1, o3, o2]"), r"fields\.options' of .*: option B must be a text"),
        (("answer: key", "answer: o3"), r"fields\.answer' of .*: the record has no answer \(''\)"),
        (
            ("answer: key", "answer: key\n  labels: ['1']"),
            r"fields\.labels' of .*: 1 labels for 2 options",
        ),
        ((" key", " key\n  answer_format: index"), r"must be an integer from 0 to 1, not '2'"),
        ((" key", " key\n  answer_format: text"), r"'2' is no option's text: A ' one '"),
        ((" key", " key"), r"fields\.answer' of .*: '2' is not an option's label: A, B"),
        ((" stem", " stem\n  filter: kept"), r"fields\.filter' of .*: 'kept' is undefined"),
    ],
)
def test_a_wrong_record_names_record_task_file_and_key(read, change, message):
    with pytest.raises(DataError, match=r"test\.jsonl, line 1: key '.*mine\.yaml") as error:
        read(FIELDS.replace(*change), [STEM])
    assert error.match(message) and "\n" not in str(error.value)


def test_equal_texts_and_ids_are_refused(read):
    fields = "\n  id: n\n  question: q\n  options: o\n  answer: a\n  answer_format: text\n"
    record = {"n": 1, "q": "?", "o": ["x", " x"], "a": "x "}
    with pytest.raises(DataError, match="'x ' is the text of several options: A 'x'; B ' x'"):
        read(fields, [record])
    with pytest.raises(
        DataError, match=r"line 2: key 'fields\.id' of .*mine.yaml: '1' comes a sec"
    ):
        read(fields, [record | {"a": "x"}] * 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "n,stem,o1,o2,o3,key\n7,Which?,a,b\n",
            r"test\.csv, line 2: 6 columns are wanted .*, not 4",
        ),
        ("n,stem,n\n", "two columns have the name 'n'"),
        ("", "the first line must name the columns"),
        ('n,stem,o1,o2,o3,key\n7,"Which?,a,b,c,A\n', "line 2: a quote is opened here"),
        ("n,stem,o1,o2,o3,key\n", "holds no questions"),
    ],
)
def test_a_damaged_table(read, content, message):
    with pytest.raises(DataError, match=message):
        read(FIELDS, content, "test.csv")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FIELDS.replace("stem", "'{{ stem'"), r"line 5: fields\.question: not a valid template"),
        (FIELDS + "  filter: a ==\n", r"line 8: fields\.filter: not a valid expression"),
        (FIELDS.replace("o2", "'{% if %}'"), r"line 6: fields\.options: not a valid template"),
        (
            FIELDS.replace("[o1, o2, o3]", "[o1]"),
            r"fields\.options: must name at least two columns",
        ),
        (FIELDS.replace("[o1, o2, o3]", "5"), r"fields\.options: must be a column, a list of"),
        (FIELDS + "  labels: [1, 2]\n", r"fields\.labels: must be a list of texts \(in quotes\)"),
        (FIELDS + "  labels: [A, A]\n", r"fields\.labels: 'A' labels two options"),
        (FIELDS + "  labels: ['A B', C]\n", r"fields\.labels: 'A B' cannot label an option"),
        (
            FIELDS + "  fixed_options: [x, y]\n",
            "give one of the keys 'options' and 'fixed_options'",
        ),
        (FIELDS + "  columns: [a, b, a]\n", r"key 'columns' lists 'a' twice"),
        (
            FIELDS.replace("options: [o1, o2, o3]", "fixed_options: [x, y, x]"),
            r"key 'fixed_options' lists 'x' twice",
        ),
        (FIELDS + "  answer_form: text\n", "unknown key 'fields.answer_form'; did you mean"),
        (FIELDS + "  answer_format: letter\n", r"fields\.answer_format: .*'label'"),
        (FIELDS.replace("  answer: key\n", ""), r"key 'fields\.answer' is missing"),
        (FIELDS + "reader: medqa\n", "give one of the keys 'reader' and 'fields'"),
        (FIELDS + "test_split: test\n", "key 'test_split' needs the key 'fields.split'"),
    ],
)
def test_a_wrong_task_file(load, fields, message):
    with pytest.raises(UsageError, match=rf"mine\.yaml.*{message}") as error:
        load(fields, [STEM])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        (FRENCHMEDMCQA_FIELDS, FRENCHMEDMCQA),
        (PUBMEDQA_FIELDS, PUBMEDQA["21645374"]),
        (FIELDS + "  answer_format: one_based_index\n", STEM),
    ],
)
def test_random_values_give_questions_or_one_line(load, tmp_path, fields, record):
    mine = load(fields, [record])
    for number in range(ROUNDS):
        damage = replaced(record, random.Random(number))
        (tmp_path / "test.jsonl").write_text(json.dumps(damage) + "\n")
        try:
            [found] = mine.questions(tmp_path)
        except GalenError as error:
            assert "test.jsonl" in str(error) and "\n" not in str(error)
            continue
        assert found.question.strip() and len(found.options) > 1
        assert found.answers <= found.options.keys()
        assert all(isinstance(text, str) and text.strip() for text in found.options.values())
