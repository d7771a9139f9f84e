import pytest

from evaluation.question_sets.question import Question
from finetune.data import contamination
from finetune.data.record import Conversation, PromptCompletion


def asked(text, context="", options=("a", "b"), id="1"):
    return Question(
        id=id,
        context=context,
        question=text,
        options=dict(zip("ABCD", options, strict=False)),
        answer="A",
    )


def held(tests, record):
    return bool(contamination.find([record], {"test.jsonl": tests}))


LONG = (
    "A 54-year-old woman comes to the physician because of a two-week history of fever and night"
    " sweats."
)


def test_a_run_of_thirteen_words_is_enough_whatever_case_and_punctuation():
    tests = [asked(LONG)]
    assert held(
        tests,
        asked("Yesterday, A 54 year old woman comes to the physician because of a two week stay"),
    )
    assert held(tests, PromptCompletion("1", f"Q: {LONG.upper()} What now?", "B"))
    assert held(
        tests,
        Conversation(
            "1", ({"role": "user", "content": LONG}, {"role": "assistant", "content": "no"})
        ),
    )
    # eleven words in common
    assert not held(
        tests, asked("A 54-year-old woman comes to the physician because of any cough.")
    )


def test_a_short_question_counts_with_its_options_in_any_order():
    """Stems that many questions have, as "which is exact", are no overlap by themselves."""
    tests = [asked("Which of these proposals is exact?", options=("It is blue", "It is red"))]
    assert held(
        tests, asked("which of these  proposals is exact", options=("It is red", "it is blue"))
    )
    assert not held(
        tests, asked("Which of these proposals is exact?", options=("It is hot", "It is cold"))
    )
    assert held([asked("What treats scurvy?")], asked("what treats  scurvy", options=("b", "a")))


def test_words_that_ten_test_questions_share_do_not_count():
    frame = (
        "Below is an instruction that describes a task, paired with an input. Write a response that"
        " completes it."
    )
    tests = [PromptCompletion(str(number), f"{frame} Number {number}", "x") for number in range(10)]
    assert not held(tests, PromptCompletion("a", f"{frame} Another", "x"))
    assert held(tests[:9], PromptCompletion("a", f"{frame} Another", "x"))


def test_characters_count_where_there_are_no_spaces():
    tests = [asked("患者女性五十四岁因发热两周就诊并伴有盗汗及体重下降")]
    assert held(tests, asked("某日患者女性五十四岁因发热两周就诊并伴有盗汗及头痛"))
    assert not held(tests, asked("患者男性五十四岁因咳嗽就诊"))


def test_an_answer_in_common_is_no_overlap():
    assert not held([asked(LONG)], PromptCompletion("1", "What is vitamin C?", LONG))


def test_a_finding_says_where_and_how_much():
    """The layout of the file that curation writes; the best of several matches."""
    tests = {
        "near.jsonl": [asked(LONG, id="7")],
        "half.jsonl": [asked(f"{LONG} {' '.join(map(str, range(20)))}", id="8")],
    }
    (found,) = contamination.find(
        [PromptCompletion("p", f"Read this: {LONG}", "x"), PromptCompletion("q", "And that?", "x")],
        tests,
    )
    span = found.pop("span")
    assert span.startswith("A 54-year-old woman") and span.endswith("night sweats")
    assert found.pop("ratio") == pytest.approx(20 / 22, abs=1e-3)
    assert found == {
        "document": "p",
        "file": "near.jsonl",
        "item": "7",
        "field": "asked",
        "span_words": 20,
        "action": "drop",
    }
