"""The robust reader on labelled answers in nine languages; strict readers as in their code."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from evaluation.chat_models.thinking import FAMILIES
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


ANSWERS = Path(__file__).parent / "answers"
RIGHT = {
    "develop": 0.99,
    "held_out": 0.99,
    "held_out_2": 0.98,
    "adversarial": 0.98,
    "real_develop": 0.98,
    "real_held_out": 0.97,
}
WRONG = {
    "develop": 0.003,
    "held_out": 0.003,
    "held_out_2": 0.0,
    "adversarial": 0.0,
    "real_develop": 0.0,
    "real_held_out": 0.012,
}
"""Of the answers at least, and at most."""
SETS = sorted(path.stem for path in ANSWERS.glob("*.jsonl"))


def labeled(name):
    lines = (ANSWERS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def outcome(row):
    allows_several = row.get("allows_several", True)
    letters = answer_extraction.extract(row["text"], row["options"], allows_several=allows_several)
    if letters == (tuple(row["expected"]) if row["expected"] else None):
        return "right"
    return "wrong" if letters else "unparsed"


def test_the_labeled_answers_are_many_and_varied():
    rows = [row for name in ("develop", "held_out") for row in labeled(name)]
    assert len(rows) >= 600
    assert len({row["language"] for row in rows}) >= 10
    assert sum(len(row["text"]) >= 200 for row in rows) >= 190


@pytest.mark.parametrize("name", SETS)
def test_robust_extraction_is_right(name):
    """A wrong letter misleads more than an unparsed answer."""
    rows = labeled(name)
    outcomes = [outcome(row) for row in rows]
    failures = "\n".join(
        f"{result}, expected {row['expected']}: {row['text'][-200:]!r}"
        for row, result in zip(rows, outcomes, strict=True)
        if result != "right"
    )
    assert outcomes.count("right") >= RIGHT[name] * len(rows), failures
    assert outcomes.count("wrong") <= WRONG[name] * len(rows), failures


@pytest.mark.parametrize("category", sorted({row["category"] for row in labeled("develop")}))
def test_robust_extraction_is_right_in_every_category(category):
    rows = [row for name in SETS for row in labeled(name) if row["category"] == category]
    outcomes = Counter(map(outcome, rows))
    # one of a small category weighs more than a hundredth
    assert outcomes["right"] >= min(0.99 * len(rows), len(rows) - 1)


QT = dict(
    zip(
        "ABCD",
        [
            "Ventricular fibrillation",
            "Atrial flutter",
            "Torsades de pointes",
            "Third-degree AV block",
        ],
        strict=True,
    )
)
DRUGS = {"A": "An ACE inhibitor", "B": "A thiazide", "C": "A calcium antagonist"}


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Let's analyze the options:\n(A) Ventricular fibrillation has no complexes.", None),
        ("Let's analyze the options:\n(A) No.\n(B) No.\n\nThe answer is (C).", ("C",)),
        ("The QT interval is long.\n\n(C) Torsades", ("C",)),
        ("The QT interval is long.\n\n**C) Torsades de pointes**", ("C",)),
        ("The answer is D. Note that the rate is slow.", ("D",)),
        ("The answer is D. Wrong answers are A and B.", ("D",)),
        ("The answer is D. False positives are rare.", ("D",)),
        ("All point to long QT, so the answer is C. Nothing else fits.", ("C",)),
        ("A resposta correta é a letra C", ("C",)),
        ('{"answer": "C"}', ("C",)),
        ('```json\n{"answer": "C"}\n```', ("C",)),
        ("The answer is `C`.", ("C",)),
        ("\\boxed{C}", ("C",)),
        ("$\\boxed{\\text{C}}$", ("C",)),
        ("The answer is B. Wait, the axis twists, so C.", ("C",)),
        ("It is narrow, so neither B nor D fits; the answer is A.", ("A",)),
        ("A is incorrect because she has a pulse, B and D as well, leaving C.", ("C",)),
        ("الإجابة الصحيحة هي ج", ("C",)),
        ("Final answer: C", ("C",)),
        ("Answer: **C. Torsades de pointes**", ("C",)),
        ("I would choose (C)", ("C",)),
        ("Option C is correct", ("C",)),
        ("I cannot determine the answer.", None),
        ("None of the above", None),
        ("Ｃ", ("C",)),
        ("Ответ: С", ("C",)),
        ("c", ("C",)),
    ],
)
def test_forms_that_were_misread(text, letters):
    assert answer_extraction.extract(text, QT) == letters


LONG = "The patient has a long history of palpitations. " * 12
SEVERAL = dict(zip("ABCD", ["0.1", "2", "MRI of the right breast", "Oedema"], strict=True))


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Between B and C, C is better.", ("C",)),
        ("Both A and C are plausible, but C fits best.", ("C",)),
        ("B and C remain. C is the more likely one given the long QT.", ("C",)),
        ("Entre B et C, C est la meilleure réponse.", ("C",)),
        ("Zwischen B und C ist C die bessere Wahl.", ("C",)),
        ("在B和C之间,C更合适。", ("C",)),
        ("I can't be certain, but if I had to choose, I'd say C.", ("C",)),
        ("C\\n\\nRationale: long QT", ("C",)),
        ("1A.", ("A",)),
        ("C\n\nA) {A}\nB) {B}\nC) {C}\nD) {D}", ("C",)),
        ("Let us see.\nA. {A}: no pulse.\nB. {B}: saw-tooth waves.\nC. {C}", None),
        ("A is wrong. That leaves C. I cannot give a definitive answer.", None),
        ("C is correct, A, B and D are not. So the answer could be B or C.", None),
        ("The most likely cause of these findings is a b", None),
        ("Let's go through the answer choices:\n\nA) {A}: no pulse, and this", None),
        ("Answer choices: (A) {A} (B) {B} (C) {C} (D) {D}\n\nThe axis twists.", None),
        ("The options are:\nA) {A}\nB) {B}\nC)", None),
        (f"{LONG}Here is why each option is either correct or incorrect:\n\nA) {{A}}: no.", None),
        ("Let's see.\nA) {A}: a likely cause.\nB) {B}: this is seen in atrial", None),
        (f"{LONG}Now the options:\n*   **A) {{A}}", None),
        ("The axis is used to correct it.\nA) {A}: it is used to correct dehydration", None),
        ("Considering all options, the most likely rhythm is:\n\nC. {C}", ("C",)),
        ("The correct option is:\n\nC. {C}", ("C",)),
        ("The answer is C, or torsades de pointes.", ("C",)),
        ("A is wrong. C is correct. The answer is A or C.", None),
        ('She has a typical appearance (likely a "snorkeling" sound).', None),
    ],
)
def test_kinds_that_real_answers_showed(text, letters):
    for letter, option in QT.items():
        text = text.replace(f"{{{letter}}}", option)
    assert answer_extraction.extract(text, QT, allows_several=False) == letters


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The next one is also 0.1. Therefore, the result is 0.001.", None),
        ("It is 2.5.", None),
        ("The answer is 2.", ("B",)),
        ("C. MRI of the right breast: an MRI shows the right breast.\nD. Oedema: no.\n\nSo?", None),
        ("The most appropriate next step is to perform an MRI of the right breast (C).", ("C",)),
        ("The answer is edema.", ("D",)),
    ],
)
def test_numbers_sides_and_spelling_of_options(text, letters):
    assert answer_extraction.extract(text, SEVERAL, allows_several=False) == letters


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (B), (C), and (D).",
        "Options (C) and (D) are the correct answers.",
        "(C) is correct. The answer is a combination of (B) and (C).",
        '{"answer": "B, C"}',
    ],
)
def test_several_letters_answer_only_a_question_that_allows_several(text):
    assert len(answer_extraction.extract(text, QT) or ()) > 1
    assert answer_extraction.read(text, QT, allows_several=False).status == "unparsed"


def test_an_article_is_no_letter():
    options = DRUGS | {"D": "A beta blocker"}
    assert answer_extraction.extract("The answer is a beta blocker.", options) == ("D",)
    assert answer_extraction.extract("The answer is a beta blocker.", DRUGS) is None


ANALYSIS = "<|channel|>analysis<|message|>Not B, so A?<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>**Answer: C**"


@pytest.mark.parametrize(
    "text",
    [
        f"{ANALYSIS}{FINAL}",
        f"{ANALYSIS}{FINAL}<|return|>",
        f"<|start|>assistant{ANALYSIS}{FINAL}<|return|>",
        f"{ANALYSIS}{ANALYSIS}{FINAL}<|return|>",
        f"{ANALYSIS}<|channel|>commentary<|message|>I check D.<|end|><|start|>assistant{FINAL}",
        f'{ANALYSIS}<|channel|>final <|constrain|>json<|message|>{{"answer": "C"}}<|return|>',
        FINAL,
        "analysisNot B, so A?assistantfinal**Answer: C**",
        "analysisNot B.assistantcommentaryI check D.assistantfinalThe answer is C.",
    ],
)
def test_the_answer_of_gpt_oss_is_its_final_channel(text):
    """With and without the special tokens."""
    extraction = answer_extraction.read(text, QT)
    assert (extraction.letters, extraction.status) == (("C",), "answered")


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>analysis<|message|>The answer is A.",
        f"{ANALYSIS}",
        f"{ANALYSIS}<|channel|>analysis<|message|>Answer: A",
        f"{ANALYSIS}<|channel|>commentary to=functions.look <|constrain|>json<|message|>"
        '{"answer": "A"}<|call|>',
        "<|channel|>commentary to=functions.look <|constrain|>json<|message|>"
        '{"answer": "A"}<|call|>',
        "analysisThe answer is A.",
    ],
)
def test_other_channels_of_gpt_oss_are_no_answer(text):
    assert answer_extraction.read(text, QT).status == "truncated_thinking"


@pytest.mark.parametrize(
    ("text", "letters", "status"),
    [
        ("<think>The answer is A.</think>Answer: C", ("C",), "answered"),
        ("The answer is A?</think>\n\nC", ("C",), "answered"),
        ("<think>The answer is A. But", None, "truncated_thinking"),
        ("<think>\n\n</think>\n\nAnswer: C", ("C",), "answered"),
        ("<think>The answer is A.</think>", None, "unparsed"),
        ("[THINK]A?[/THINK]C", ("C",), "answered"),
        ("<|channel|>analysis<|message|>The answer is A", None, "truncated_thinking"),
        ("<|channel|>analysis<|message|>A<|end|><|channel|>final<|message|>C", ("C",), "answered"),
        ("## Thinking\n\nA?\n\n## Final Response\n\nThe answer is C.", ("C",), "answered"),
        ("I do not know.", None, "unparsed"),
        ("", None, "unparsed"),
        *(
            (f"{markers.opening}The answer is A.{markers.closing}C", ("C",), "answered")
            for markers in FAMILIES.values()
        ),
        *(
            (f"{markers.opening}The answer is A.", None, "truncated_thinking")
            for markers in FAMILIES.values()
        ),
    ],
)
def test_thinking_is_not_the_answer(text, letters, status):
    extraction = answer_extraction.read(text, QT)
    assert (extraction.letters, extraction.status) == (letters, status)


@pytest.mark.parametrize(
    "unit",
    [
        *("A, ", "The answer is A or B. ", "(", "[[", "{", '{"answer": ', "\\boxed{", "<think>"),
        *("</think>", "\n", "** ", "the ", "answer ", "correct is ", "not A but ", "Option A "),
        *("A. Aspirin\n", "wait, ", "答案是", "A or ", " ", "Answer: ", "`A", "\\text{", "##Q:\n"),
        *("if would ", '"answer": "', "Aspirin ", "is ", "l'", "AB"),
    ],
)
def test_extraction_takes_linear_time(unit):
    text = unit * (100_000 // len(unit))
    begin = time.process_time()
    answer_extraction.extract(text, {"A": "Aspirin", "B": "Warfarin"})
    assert time.process_time() - begin < 1
