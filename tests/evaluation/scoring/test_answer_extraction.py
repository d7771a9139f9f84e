"""The robust reader on labelled answers in nine languages; strict readers as in their code."""

from collections import Counter
from pathlib import Path

import pytest

from evaluation.scoring import answer_extraction

LETTERS = {
    "en": ["Amoxicillin", "Metoprolol", "Warfarin", "Insulin", "Observation only"],
    "fr": ["Amoxicilline", "Métoprolol", "Warfarine", "Insuline", "Surveillance"],
    "es": ["Amoxicilina", "Metoprolol", "Warfarina", "Insulina", "Observación"],
    "pt": ["Amoxicilina", "Metoprolol", "Varfarina", "Insulina", "Observação"],
    "de": ["Amoxicillin", "Metoprolol", "Warfarin", "Insulin", "Beobachtung"],
    "ru": ["Амоксициллин", "Метопролол", "Варфарин", "Инсулин", "Наблюдение"],
    "zh": ["阿莫西林", "美托洛尔", "华法林", "胰岛素", "观察"],
    "ja": ["アモキシシリン", "メトプロロール", "ワルファリン", "インスリン", "経過観察"],
    "ar": ["أموكسيسيلين", "ميتوبرولول", "وارفارين", "الإنسولين", "المراقبة"],
}
WORDS = {
    "en": ["yes", "no", "maybe"],
    "fr": ["oui", "non", "peut-être"],
    "es": ["sí", "no", "tal vez"],
    "pt": ["sim", "não", "talvez"],
    "de": ["ja", "nein", "vielleicht"],
    "ru": ["да", "нет"],
    "zh": ["是", "否", "可能"],
    "ja": ["はい", "いいえ"],
    "ar": ["نعم", "لا", "ربما"],
}


def table():
    lines = (Path(__file__).parent / "answers.tsv").read_text(encoding="utf-8").splitlines()[1:]
    for line in lines:
        language, kind, expected, answer = line.split("\t")
        options = dict(
            zip("ABCDE", (LETTERS if kind == "letters" else WORDS)[language], strict=False)
        )
        letters = (
            None
            if expected == "-"
            else tuple(letter for letter in options if letter in expected.split(","))
        )
        if kind == "words" and expected != "-":
            letters = tuple(letter for letter, text in options.items() if text == expected)
            assert letters
        yield language, answer.replace("\\n", "\n"), options, letters


def test_every_answer_of_the_table_is_read():
    rows = list(table())
    assert len(rows) >= 300
    assert min(Counter(language for language, *_ in rows).values()) >= 20
    wrong = [
        f"{language}: {answer!r} is read as {found}, not {letters}"
        for language, answer, options, letters in rows
        if (found := answer_extraction.extract(answer, options)) != letters
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("A, " * 700, ("A",)),
        ("option A, " * 300, ("A",)),
        ("The answer is:" + "\n" * 200 + "x", None),
        ("Answer: " + "**" * 1000, None),
    ],
)
def test_answers_that_repeat_themselves_come_to_an_end(text, letters):
    """A search that tries all ways to share signs between its parts would go on for ever."""
    assert answer_extraction.extract(text, {"A": "Aspirin", "B": "Warfarin"}) == letters


FOUR = dict(zip("ABCD", LETTERS["en"], strict=False))
PUBMEDQA = dict(zip("ABC", WORDS["en"], strict=True))


def test_majority_ignores_unparsed_answers():
    assert answer_extraction.majority([None, None, ("B",), None]) == ("B",)
    assert answer_extraction.majority([("A",), ("B",), ("B",), None, None]) == ("B",)
    assert answer_extraction.majority([("A",), ("B",)]) == ("A",)
    assert answer_extraction.majority([None, None]) is None


@pytest.mark.parametrize(
    ("text", "options", "letters"),
    [
        ("It is the heart. The answer is: B", FOUR, ("B",)),
        ("The answer is amoxicillin", FOUR, ("A",)),  # whatever begins with a is A there
        ("The answer is: option C", FOUR, None),  # and this is none of the letters
        ("The answer is: yes", PUBMEDQA, ("A",)),
        ("The answer is yesyes", PUBMEDQA, ("A",)),
        ("The answer is: maybe", PUBMEDQA, None),
        ("yes because", PUBMEDQA, ("A",)),
        ("", FOUR, None),
    ],
)
def test_strict_reading_of_meditron(text, options, letters):
    assert answer_extraction.extract_meditron(text, options) == letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("###Answer: OPTION B IS CORRECT.</s>", ("B",)),
        ("###Answer: OPTION C,A IS CORRECT.", ("A", "C")),
        ("B", ("B",)),
        ("The answer is B", None),
        ("###Rationale: x ###Answer: OPTION B IS CORRECT.", None),
    ],
)
def test_strict_reading_of_mmedbench(text, letters):
    assert answer_extraction.extract_mmedbench(text, FOUR) == letters
