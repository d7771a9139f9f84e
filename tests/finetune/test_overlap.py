from evaluation.question import Question
from finetune.overlap import Overlap
from finetune.record import Conversation, Pair


def asked(text, context=""):
    return Question(id="1", context=context, question=text, options={"A": "a", "B": "b"}, answer="A")


LONG = "A 54-year-old woman comes to the physician because of a two-week history of fever and night sweats."


def test_a_run_of_thirteen_words_is_enough_whatever_case_and_punctuation():
    tests = Overlap([asked(LONG)])
    assert asked("Yesterday, A 54 year old woman comes to the physician because of a two week stay") in tests
    assert Pair("1", f"Q: {LONG.upper()} What now?", "B") in tests
    assert Conversation("1", ({"role": "user", "content": LONG}, {"role": "assistant", "content": "no"})) in tests
    assert asked("A 54-year-old woman comes to the physician because of a cough.") not in tests  # twelve words in common


def test_a_shorter_text_only_as_a_whole():
    tests = Overlap([asked("What treats scurvy?")])
    assert asked("what treats  scurvy") in tests
    assert asked("What treats scurvy best?") not in tests


def test_characters_count_as_words_where_there_are_no_spaces():
    tests = Overlap([asked("患者女性五十四岁因发热两周就诊并伴有盗汗")])
    assert asked("某日患者女性五十四岁因发热两周就诊") in tests
    assert asked("患者男性五十四岁因咳嗽就诊") not in tests


def test_an_answer_in_common_is_no_overlap():
    assert Pair("1", "What is vitamin C?", LONG) not in Overlap([asked(LONG)])
