"""Each reader on rows in its set's published layout, written here unless a real file is named."""

import json
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest

from evaluation import question_sets
from evaluation.question_sets import multilingual, rows
from evaluation.question_sets.question import Question
from evaluation.tasks import task
from galen.errors import DataError, UsageError


@pytest.fixture
def read(tmp_path):
    """Return a function that writes records to a named file and reads them with a set's reader."""

    def read(name, file, records):
        path = tmp_path / file
        if file.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
        elif file.endswith(".jsonl"):
            path.write_text(
                "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
                encoding="utf-8",
            )
        else:
            path.write_text(
                records if isinstance(records, str) else json.dumps(records, ensure_ascii=False),
                encoding="utf-8",
            )
        return question_sets.read(name, path)

    return read


FIVE = {"A": "Amoxicillin", "B": "Doxycycline", "C": "Cefazolin", "D": "Rifampin", "E": "Linezolid"}


def test_medqa_five_options_as_its_authors_files(read):
    record = {
        "question": "Which drug?",
        "answer": "Cefazolin",
        "options": FIVE,
        "meta_info": "step2&3",
        "answer_idx": "C",
    }
    [found] = read("medqa", "test.jsonl", [record])
    assert found == Question("test:1", "", "Which drug?", FIVE, "C", "medqa", subject="step2&3")


def test_medqa_four_options_as_the_hub_and_bigbio_rows(read):
    four = {letter: FIVE[letter] for letter in "ABCD"}
    record = {
        "question": "Which drug?",
        "answer": "Rifampin",
        "options": four,
        "meta_info": "step1",
        "answer_idx": "D",
    }
    [found] = read("medqa", "phrases_no_exclude_test.parquet", [record])
    assert (found.options, found.answer) == (four, "D")
    pairs = [{"key": letter, "value": text} for letter, text in FIVE.items()]
    [found] = read(
        "medqa",
        "bigbio.jsonl",
        [{"question": "Which drug?", "answer": "Linezolid", "options": pairs}],
    )
    assert (found.options, found.answer) == (FIVE, "E")


MEDMCQA = {
    "question": "Nerve of the diaphragm?",
    "opa": "Vagus",
    "opb": "Phrenic",
    "opc": "Radial",
    "opd": "Ulnar",
    "choice_type": "single",
    "exp": "C3 to C5.",
    "subject_name": "Anatomy",
    "topic_name": None,
    "id": "x1",
}


def test_medmcqa_counts_from_one_in_its_own_files_and_from_zero_on_the_hub(read):
    options = {"A": "Vagus", "B": "Phrenic", "C": "Radial", "D": "Ulnar"}
    expected = Question(
        "x1",
        "",
        "Nerve of the diaphragm?",
        options,
        "B",
        "medmcqa",
        subject="Anatomy",
        rationale="C3 to C5.",
    )
    lines = json.dumps(MEDMCQA | {"cop": 2}) + "\n" + json.dumps(MEDMCQA | {"id": "hidden"}) + "\n"
    assert read("medmcqa", "dev.json", lines) == [expected]
    assert read(
        "medmcqa", "validation.parquet", [MEDMCQA | {"cop": 1}, MEDMCQA | {"id": "x2", "cop": -1}]
    ) == [expected]


def test_pubmedqa_own_file_and_hub_rows(read):
    own = {
        "12377809": {
            "QUESTION": "Is it safe?",
            "CONTEXTS": ["Forty patients.", "None died."],
            "LABELS": ["METHODS", "RESULTS"],
            "LONG_ANSWER": "It is safe.",
            "final_decision": "yes",
        }
    }
    hub = {
        "pubid": 12377809,
        "question": "Is it safe?",
        "context": {
            "contexts": ["Forty patients.", "None died."],
            "labels": ["METHODS", "RESULTS"],
            "meshes": [],
        },
        "long_answer": "It is safe.",
        "final_decision": "yes",
    }
    options = {"A": "yes", "B": "no", "C": "maybe"}
    expected = Question(
        "12377809",
        "Forty patients.\nNone died.",
        "Is it safe?",
        options,
        "A",
        "pubmedqa",
        rationale="It is safe.",
    )
    assert read("pubmedqa", "ori_pqal.json", own) == [expected]
    assert read("pubmedqa", "train.parquet", [hub]) == [expected]
    artificial = own | {
        "3": {"QUESTION": "q?", "CONTEXTS": ["c"], "LONG_ANSWER": "l", "final_decision": "no"},
        "4": {"QUESTION": "q", "CONTEXTS": ["c"]},
    }
    # the unlabelled one is left out
    assert [item.answer for item in read("pubmedqa", "ori_pqaa.json", artificial)] == ["A", "B"]


def test_mmlu_csv_and_hub_rows(read):
    [found] = read("mmlu", "college_medicine_test.csv", '"Which ion, ""mainly""?",Na,K,Ca,Mg,B\n')
    assert (found.question, found.subject, found.answer) == (
        'Which ion, "mainly"?',
        "college_medicine",
        "B",
    )
    [found] = read(
        "mmlu",
        "test.parquet",
        [
            {
                "question": "Which?",
                "subject": "virology",
                "choices": ["a", "b", "c", "d"],
                "answer": 3,
            }
        ],
    )
    assert (found.options, found.subject, found.answer) == (
        {"A": "a", "B": "b", "C": "c", "D": "d"},
        "virology",
        "D",
    )


def test_truthfulqa_hides_that_the_first_choice_is_right(read):
    targets = {"choices": ["Nothing", "You die", "You grow", "You sleep"], "labels": [1, 0, 0, 0]}
    records = [{"question": f"What happens, {n}?", "mc1_targets": targets} for n in range(40)]
    found = read("truthfulqa", "validation.jsonl", records)
    assert all(item.options[item.answer] == "Nothing" for item in found)
    assert len({item.answer for item in found}) == 4
    assert found == read("truthfulqa", "validation.jsonl", records)


TRUTHFULQA_CSV = """\
\ufeffType,Category,Question,Best Answer,Best Incorrect Answer,Correct Answers,\
Incorrect Answers,Source
Adversarial,Misconceptions,Why do veins appear blue?,Veins appear blue because blue light does not \
penetrate deeply into human tissue,Veins appear blue because deoxygenated blood is blue,Veins \
appear blue because blue light does not penetrate deeply into human tissue,Veins appear blue due \
to the deoxygenated blood; Veins appear blue because deoxygenated blood is blue; ,https://example.org
Adversarial,Nutrition,Is sugar harmful?,"No, in small doses",Yes,"No, in small doses",Yes; Always; \
It depends; Yes; Only brown sugar,https://example.org
"""


def test_truthfulqa_authors_csv_and_files_of_choices(read):
    """The authors' CSV and `mc_task.json`, and both configurations of the hub."""
    [veins, sugar] = read("truthfulqa", "TruthfulQA.csv", TRUTHFULQA_CSV)
    assert (veins.subject, sugar.subject) == ("Misconceptions", "Nutrition")
    wrong = ["Yes", "Always", "It depends", "Only brown sugar"]
    assert sorted(sugar.options.values()) == sorted(["No, in small doses", *wrong])
    assert sugar.options[sugar.answer] == "No, in small doses"
    targets = {"No, in small doses": 1} | dict.fromkeys(wrong, 0)
    record = {"question": "Is sugar harmful?", "mc1_targets": targets, "mc2_targets": targets}
    [authors] = read("truthfulqa", "mc_task.json", [record])
    record["mc1_targets"] = {"choices": list(targets), "labels": list(targets.values())}
    [hub] = read("truthfulqa", "validation.parquet", [record])
    generation = {"question": "Is sugar harmful?", "category": "Nutrition"}
    generation |= {"best_answer": "No, in small doses", "incorrect_answers": wrong}
    [of_generation] = read("truthfulqa", "validation.jsonl", [generation])
    assert authors.options == hub.options == of_generation.options == sugar.options
    assert authors.answer == hub.answer == of_generation.answer == sugar.answer
    assert of_generation.subject == "Nutrition"
    # 17 of the authors' questions have an empty choice, which the harness scores
    [empty] = read("truthfulqa", "mc_task.json", [record | {"mc1_targets": targets | {"": 0}}])
    assert sorted(empty.options.values()) == sorted([*targets, ""])


def test_truthfulqa_health_has_meditron_s_categories_and_four_options(tmp_path):
    folder = tmp_path / "truthfulqa"
    folder.mkdir()
    header, _, sugar = TRUTHFULQA_CSV.splitlines()
    lines = [sugar.replace("Is sugar", f"Is sugar {n}") for n in range(60)]
    path = folder / "TruthfulQA.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    _, specification = task.load("truthfulqa_health")
    questions = specification.questions(tmp_path)
    assert len(questions) == 60
    for question in questions:
        assert list(question.options) == list("ABCD")
        assert question.options[question.answer] == "No, in small doses"
    counts = Counter(question.answer for question in questions)
    assert min(counts[label] for label in "ABCD") >= 6, "the sampling gives the answer away"


def test_options_are_not_stripped(read):
    options = {"A": " Amoxicillin", "B": "Doxycycline ", "C": "Cefazolin", "D": "Rifampin"}
    record = {"question": "Which drug?", "options": options, "answer": "Doxycycline"}
    [found] = read("medqa", "test.jsonl", [record])
    assert (found.options, found.answer) == (options, "B")
    [found] = read("mmlu", "anatomy_test.csv", "Which?,a, b,c ,d,B\n")
    assert list(found.options.values()) == ["a", " b", "c ", "d"]
    [found] = read("mmlu", "virology_test.csv", '\ufeff"Two lines.\n\ufeffWhich?",a,b,c,d,B\n')
    assert found.question == "Two lines.\n\ufeffWhich?"
    harness = {"sent1": "Which drug?", "label": 1}
    harness |= {f"ending{number}": text for number, text in enumerate(options.values())}
    [found] = read("medqa", "test.jsonl", [harness])
    assert (found.question, found.options, found.answer) == ("Which drug?", options, "B")


def test_medxpertqa_question_loses_the_options_it_repeats(read):
    options = {letter: f"text {letter}" for letter in "ABCDEFGHIJ"}
    record = {
        "id": "Text-7",
        "question": "Which one?\nAnswer Choices: (A) text A (B) text B",
        "options": options,
        "label": "J",
        "medical_task": "Diagnosis",
        "body_system": "Skeletal",
        "question_type": "Reasoning",
    }
    assert read("medxpertqa", "test.jsonl", [record]) == [
        Question("Text-7", "", "Which one?", options, "J", "medxpertqa", subject="Skeletal")
    ]


def test_mmedbench_languages_sets_and_checked_rationales(read):
    record = {
        "question": "次のうち？",
        "options": FIVE,
        "answer_idx": "C,A",
        "rationale": "理由。",
        "human_checked": True,
        "human_check_passed": True,
    }
    [found] = read("mmedbench", "Japanese.jsonl", [record])
    assert (found.answer, found.answers, found.language) == ("A,C", frozenset("AC"), "ja")
    assert found.rationale == "理由。" and found.rationale_checked
    [found] = read(
        "mmedbench",
        "French.jsonl",
        [record | {"answer_idx": ["B", "D"], "human_check_passed": False}],
    )
    assert (found.answer, found.language, found.rationale_checked) == ("B,D", "fr", False)
    with pytest.raises(DataError, match="bear the name of their language"):
        read("mmedbench", "test.jsonl", [record])


def test_frenchmedmcqa_own_file_and_hub_rows(read):
    answers = {letter.lower(): text for letter, text in FIVE.items()}
    own = {
        "id": "f1",
        "question": "Lesquelles ?",
        "answers": answers,
        "correct_answers": ["d", "a"],
        "subject_name": "pharmacie",
        "nbr_correct_answers": 2,
    }
    expected = Question(
        "f1", "", "Lesquelles ?", FIVE, "A,D", "frenchmedmcqa", "fr", subject="pharmacie"
    )
    assert read("frenchmedmcqa", "test.json", [own]) == [expected]
    assert [item.id for item in read("frenchmedmcqa", "train.json", [own, own])] == ["f1", "f1#2"]
    hub = {
        "id": "f1",
        "question": "Lesquelles ?",
        "correct_answers": [0, 3],
        "subject_name": "pharmacie",
    }
    assert read(
        "frenchmedmcqa",
        "test.parquet",
        [hub | {f"answer_{key}": text for key, text in answers.items()}],
    ) == [expected]


def test_igakuqa_leaves_questions_with_images_out(read):
    record = {
        "problem_id": "116A1",
        "problem_text": "正しいのはどれか。",
        "choices": list(FIVE.values()),
        "text_only": True,
        "answer": ["e"],
        "points": "1",
    }
    found = read(
        "igakuqa", "116-A.jsonl", [record, record | {"problem_id": "116A2", "text_only": False}]
    )
    assert found == [Question("116A1", "", "正しいのはどれか。", FIVE, "E", "igakuqa", "ja")]


def test_rumeddanet(read):
    record = {
        "pairID": "b2d6",
        "context": "Эпилепсия.",
        "question": "Это хроническое заболевание?",
        "answer": "нет",
    }
    [found] = read(
        "rumeddanet",
        "test_v1.jsonl",
        [record, {key: record[key] for key in ("pairID", "context", "question")} | {"pairID": "x"}],
    )
    assert found == Question(
        "b2d6",
        "Эпилепсия.",
        "Это хроническое заболевание?",
        {"A": "да", "B": "нет"},
        "B",
        "rumeddanet",
        "ru",
    )


def test_headqa_exams_and_hub_rows(read):
    answers = [
        {"aid": 1, "atext": "Uno"},
        {"aid": 2, "atext": "Dos"},
        {"aid": 3, "atext": "Tres"},
        {"aid": 4, "atext": "Cuatro"},
    ]
    item = {"qid": "7", "qtext": "¿Cuál?", "ra": "3", "answers": answers, "image": ""}
    exam = {
        "name": "Cuaderno_2013_1_B",
        "year": "2013",
        "category": "biology",
        "data": [item, item | {"qid": "8", "image": "./a.png"}],
    }
    expected = Question(
        "Cuaderno_2013_1_B:7",
        "",
        "¿Cuál?",
        {"A": "Uno", "B": "Dos", "C": "Tres", "D": "Cuatro"},
        "C",
        "headqa",
        "es",
        subject="biology",
    )
    assert read(
        "headqa",
        "test_HEAD.json",
        {"version": "1", "language": "es", "exams": {"Cuaderno_2013_1_B": exam}},
    ) == [expected]
    hub = {
        "name": "Cuaderno_2013_1_B",
        "year": "2013",
        "category": "biology",
        "qid": 7,
        "qtext": "¿Cuál?",
        "ra": 3,
        "answers": answers,
    }
    assert read("headqa", "test.jsonl", [hub]) == [expected]


def test_language_of_headqa_is_that_of_its_file(read, tmp_path):
    item = {"qid": "7", "qtext": " Which one? ", "ra": "1", "image": ""}
    item["answers"] = [{"aid": 1, "atext": " One "}, {"aid": 2, "atext": "Two"}]
    exams = {"exams": {"e": {"name": "e", "category": "biology", "data": [item]}}}
    languages = {}
    for file in ("test_HEAD.json", "test_HEAD_EN.json", "test_en.json", "token.json"):
        [found] = read("headqa", file, exams)
        languages[file] = found.language
        # as the hub's rows, which the harness reads
        assert (found.question, found.options["A"]) == ("Which one?", "One")
    assert list(languages.values()) == ["es", "en", "en", "es"]
    [found] = read("headqa", "test.json", exams | {"language": "en"})
    assert found.language == "en"
    (tmp_path / "en").mkdir()
    [found] = read("headqa", "en/test-00000-of-00001.parquet", [item | {"name": "e"}])
    assert found.language == "en"
    [found] = read("headqa", "en/test_HEAD.json", exams | {"language": "es"})
    assert found.language == "es"


BIOMISTRAL = {
    "identifier": "m1",
    "corpus_name": "PubMedQA",
    "task_type": "mcqa",
    "classes": ["A", "B", "C"],
    "context": "Forty patients.",
    "question": "Safe?",
    "options": {"A": "yes", "B": "no", "C": "maybe"},
    "correct_answer_letter": "A",
    "few_shot_samples[1]": [
        {
            "context": None,
            "question": "One?",
            "options": {"A": "x", "B": "y"},
            "correct_answer_letter": "B",
        }
    ],
}


def test_biomistral_english_translated_and_fewshot_examples(read, tmp_path):
    [found] = read("biomistral", "overall_test+prompt.json", [BIOMISTRAL])
    assert (found.context, found.question, found.answer, found.subject) == (
        "Forty patients.",
        "Safe?",
        "A",
        "PubMedQA",
    )
    translated = {
        "context_translated": "Quarante.",
        "question_translated": "Sûr ?",
        "options_translated": {"A": "oui", "B": "non", "C": "peut-être"},
    }
    [found] = read("biomistral", "French-full.json", [BIOMISTRAL | translated])
    assert (found.context, found.options["A"], found.language) == ("Quarante.", "oui", "fr")
    [row] = rows.read(tmp_path / "French-full.json")
    [example] = multilingual.biomistral_few_shot(row, 1)
    assert (example.question, example.answer, example.language) == (
        "One?",
        "B",
        "en",
    )
    with pytest.raises(DataError, match=r"few_shot_samples\[2\]"):
        multilingual.biomistral_few_shot(row, 2)


def test_select_by_published_ids_and_subjects(read, tmp_path):
    found = read(
        "mmlu",
        "test.jsonl",
        [
            {"question": f"{n}?", "subject": "ab"[n % 2], "choices": ["x", "y"], "answer": 0}
            for n in range(4)
        ],
    )
    ids = tmp_path / "test_ground_truth.json"
    ids.write_text('{"test:1": "yes", "test:2": "no"}')
    assert [item.id for item in question_sets.select(found, ids)] == ["test:1", "test:2"]
    assert [item.id for item in question_sets.select(found, subjects=["b"])] == ["test:2", "test:4"]
    ids.write_text('["test:1", "gone"]')
    with pytest.raises(
        DataError, match="1 of 2 ids are not among the questions, for example 'gone'"
    ):
        question_sets.select(found, ids)


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        (
            "medqa",
            {"question": "?", "options": FIVE, "answer_idx": "F"},
            "test.jsonl, line 1: the right answer is F; it must be among",
        ),
        (
            "medqa",
            {"question": "?", "options": {"A": "x"}, "answer_idx": "A"},
            "line 1: key 'options' must hold at least two options",
        ),
        ("medmcqa", MEDMCQA | {"cop": 4}, "key 'cop' must be an integer from 0 to 3, not 4"),
        (
            "pubmedqa",
            {"question": "?", "context": "text", "final_decision": "yes"},
            r"key 'CONTEXTS' \(or 'context'\) must be a list of texts",
        ),
        ("mmlu", {"question": "?", "choices": ["a"], "answer": 0}, "at least two options"),
        (
            "truthfulqa",
            {"question": "?", "mc1_targets": {"choices": ["a", "b"], "labels": [0, 0]}},
            "one of them 1",
        ),
        (
            "igakuqa",
            {"problem_id": "1", "problem_text": "?", "choices": ["a", "b"], "answer": "a"},
            "must be a list of letters",
        ),
        ("headqa", {"qtext": "?", "answers": ["a"]}, "must be a list of {'aid', 'atext'}"),
        (
            "galen",
            {"id": "1", "question": "?", "options": {"A": "a", "B": "b"}, "answer": "A,C"},
            "key 'answer' is 'A,C'",
        ),
        (
            "medqa",
            {"question": "?", "options": [{"key": 1, "value": "x"}], "answer_idx": "A"},
            "line 1: not a record in the layout 'medqa'",
        ),
        (
            "medqa",
            {"question": "?", "options": FIVE, "answer": "Aspirin"},
            "the right answer is missing; it must be among the options A, B",
        ),
        (
            "pubmedqa",
            {"question": "?", "contexts": ["c"], "final_decision": "perhaps"},
            "must be yes, no or maybe, not 'perhaps'",
        ),
        (
            "igakuqa",
            {"problem_id": "1", "problem_text": "?", "choices": ["a", "b"], "answer": [1]},
            "not a record in the layout 'igakuqa'",
        ),
        (
            "igakuqa",
            {"problem_id": "1", "problem_text": "?", "choices": "ab", "answer": ["a"]},
            "at least two options with a text each",
        ),
        (
            "frenchmedmcqa",
            {f"answer_{n}": n for n in "abcde"} | {"correct_answers": [7]},
            "not a record in the layout 'frenchmedmcqa'",
        ),
        (
            "medqa",
            {"question": "?", "options": [{"key": "A", "value": "x"}] * 2, "answer_idx": "A"},
            "names a letter twice: A, A",
        ),
        (
            "truthfulqa",
            {"question": "?", "mc1_targets": ["a"]},
            "not a record in the layout 'truthfulqa'",
        ),
    ],
)
def test_a_wrong_record_is_named(read, name, record, message):
    with pytest.raises(DataError, match=message):
        read(name, "test.jsonl", [record])


def test_wrong_names_and_files(read, tmp_path):
    with pytest.raises(UsageError, match=r"unknown question set 'medq'; did you mean 'medqa'\?"):
        question_sets.read("medq", tmp_path)
    with pytest.raises(DataError, match="holds no file of questions"):
        question_sets.read("medqa", tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        question_sets.read("medqa", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="six columns are wanted"):
        read("mmlu", "anatomy_test.csv", "only,three,columns\n")
    with pytest.raises(DataError, match="is not JSON"):
        read("pubmedqa", "broken.json", "{")
    for file, content in {
        "a_test.csv": "caf\xe9,a,b,c,d,A".encode("latin-1"),
        "b.parquet": b"PAR1",
        "c.json": b'{"exams": {"a": {}}}',
    }.items():
        (tmp_path / file).write_bytes(content)
        with pytest.raises(DataError, match=rf"{file} cannot be read as a \.\w+ file of questions"):
            question_sets.read("headqa", tmp_path / file)
    with pytest.raises(UsageError, match="write hub:OWNER/NAME:SPLIT"):
        question_sets.read("medqa", "hub:owner/name")
    with pytest.raises(DataError, match="a second time"):
        read(
            "galen",
            "twice.jsonl",
            [{"id": "1", "question": "?", "options": {"A": "a", "B": "b"}, "answer": "A"}] * 2,
        )
