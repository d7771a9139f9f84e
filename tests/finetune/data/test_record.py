import json

import pytest

from evaluation.question_sets.question import Question
from finetune.data import record
from finetune.data.record import Conversation, PromptCompletion
from galen.errors import DataError


def write(path, *records):
    path.write_text("".join(json.dumps(item) + "\n" for item in records))
    return path


def test_the_keys_tell_the_kind(tmp_path, question_file):
    pairs = record.read(
        write(
            tmp_path / "a.jsonl",
            {"prompt": "p", "completion": "c"},
            {"prompt": "p", "completion": "c"},
        )
    )
    # copies are never parted by a split
    assert [type(item) for item in pairs] == [PromptCompletion, PromptCompletion] and pairs[
        0
    ].id == pairs[1].id
    messages = [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]
    (conversation,) = record.read(write(tmp_path / "b.jsonl", {"messages": messages, "id": "7"}))
    assert conversation == Conversation(
        "7", ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    )
    assert isinstance(record.read(question_file)[0], Question)


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        ({"instruction": "Name it.", "input": "", "output": "Scurvy."}, "Name it.", "Scurvy."),
        (
            {"instruction": "Name it.", "input": "Gums bleed.", "output": "Scurvy."},
            "Name it.\n\nGums bleed.",
            "Scurvy.",
        ),
        ({"question": "When to refer?", "answer": "At once."}, "When to refer?", "At once."),
    ],
)
def test_questions_and_instructions_with_free_answers_are_conversations(
    tmp_path, given, asked, said
):
    (found,) = record.read(write(tmp_path / "a.jsonl", given))
    assert found.messages == (
        {"role": "user", "content": asked},
        {"role": "assistant", "content": said},
    )


def test_an_id_that_is_null_is_absent(tmp_path):
    pairs = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c", "id": None}]
    first, second = record.read(write(tmp_path / "a.jsonl", *pairs))
    assert first == second


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": "p", "completion": ""}, r"a\.jsonl, line 2: key 'completion' must be a text"),
        ({"prompt": "p"}, r"line 2: key 'completion' must be a text, not missing"),
        ({"prompt": "p", "completion": None}, "key 'completion' must be a text, not null"),
    ],
)
def test_wrong_pairs_are_reported(tmp_path, wrong, message):
    with pytest.raises(DataError, match=message):
        record.read(write(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c"}, wrong))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "must be a list of messages"),
        (
            [{"role": "doctor", "content": "a"}],
            "message 1: key 'role' is 'doctor'; known: system, user, assistant",
        ),
        ([{"role": "user", "content": "a"}], "the last message must be the assistant's"),
        ([{"role": "gpt", "content": "a"}], "the first message must be the user's or the system's"),
        (["a"], "message 1: a message must be an object"),
    ],
)
def test_wrong_conversations_are_reported(tmp_path, messages, message):
    with pytest.raises(DataError, match=message):
        record.read(write(tmp_path / "a.jsonl", {"messages": messages}))


@pytest.mark.parametrize(
    "given", [{"text": "t"}, {"prompt": "p", "response": "r"}, {"conversations": []}]
)
def test_an_unknown_layout_is_reported_with_the_known_ones(tmp_path, given):
    with pytest.raises(
        DataError,
        match=(
            rf"line 1: no record of a known layout, its keys are {', '.join(given)}; known:"
            r" .*messages"
        ),
    ):
        record.read(write(tmp_path / "a.jsonl", given))


def test_an_empty_file_is_reported(tmp_path):
    with pytest.raises(DataError, match="holds no records"):
        record.read(write(tmp_path / "a.jsonl"))
