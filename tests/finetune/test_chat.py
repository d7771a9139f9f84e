import pytest

from finetune import chat, sample
from finetune.record import Conversation
from finetune.sample import IGNORED, Item
from galen.errors import DataError, UsageError

MESSAGES = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is  it?\n"},
    {"role": "assistant", "content": "α-blockers, 5 mg\nNot ß."},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": " Nothing 什么"},
)
RENDERED = {
    "meditron": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>question\nWhat is  it?\n<|im_end|>\n"
    "<|im_start|>answer\nα-blockers, 5 mg\nNot ß.<|im_end|>\n"
    "<|im_start|>question\nAnd?<|im_end|>\n<|im_start|>answer\n Nothing 什么<|im_end|>\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is  it?\n<|im_end|>\n"
    "<|im_start|>assistant\nα-blockers, 5 mg\nNot ß.<|im_end|>\n"
    "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n Nothing 什么<|im_end|>\n",
}


def runs(made, tokenizer):
    """Return the text of each run of tokens in the loss."""
    found, run = [], []
    for label in [*made.labels, IGNORED]:
        if label != IGNORED:
            run.append(label)
        elif run:
            found.append(tokenizer.decode(run))
            run = []
    return found


@pytest.mark.parametrize("template", sorted(RENDERED))
def test_a_conversation_is_rendered_and_its_answers_are_in_the_loss_token_by_token(tokenizer, template):
    chat.install(tokenizer, chat.read_template(template))
    (made,), cut = sample.encode([Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, 1000)
    assert chat.render(tokenizer, MESSAGES) == RENDERED[template]
    assert made.tokens == tokenizer.encode(RENDERED[template], add_special_tokens=False) and cut == 0
    assert [label for label in made.labels if label != IGNORED] == [
        token for token, label in zip(made.tokens, made.labels, strict=True) if label != IGNORED
    ]
    first, second = runs(made, tokenizer)
    assert first == "α-blockers, 5 mg\nNot ß.<|im_end|>"
    assert second.strip() == "Nothing 什么<|im_end|>"
    assert not tokenizer.decode([made.tokens[made.first_label - 1]]).strip()  # the line break behind "answer" is given, not learnt


def test_old_messages_go_first_and_the_system_message_stays(tokenizer):
    chat.install(tokenizer, chat.read_template("meditron"))
    (whole,), _ = sample.encode([Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, 1000)
    (made,), cut = sample.encode([Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, len(whole) - 1)
    assert cut == 1
    assert tokenizer.decode(made.tokens) == chat.render(tokenizer, [MESSAGES[0], *MESSAGES[3:]])


def test_an_answer_that_is_too_long_is_cut_but_never_to_nothing(tokenizer):
    chat.install(tokenizer, chat.read_template("meditron"))
    item = Item(Conversation("1", MESSAGES[1:3]), "lm_eval")
    (whole,), _ = sample.encode([item], tokenizer, 1000)
    for length in range(whole.first_label + 1, len(whole) + 1):
        (made,), _ = sample.encode([item], tokenizer, length)
        assert len(made) == length and made.labels[made.first_label :] == whole.labels[whole.first_label : length]
    with pytest.raises(DataError, match=r"1 of 1 .*raise data\.max_length"):
        sample.encode([item], tokenizer, whole.first_label)


def test_generation_stops_at_the_mark_behind_an_answer(tokenizer):
    chat.install(tokenizer, chat.read_template("meditron"))
    assert chat.end_of_answer(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_marks_that_are_no_tokens_are_told(tiny_tokenizer):
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(tiny_tokenizer)
    with pytest.raises(UsageError, match=r"add them: model.add_tokens=\['<\|im_end\|>', '<\|im_start\|>'\]"):
        chat.install(bare, chat.read_template("meditron"))
    with pytest.raises(UsageError, match="no chat template"):
        chat.install(AutoTokenizer.from_pretrained(tiny_tokenizer), None)


def test_a_template_that_rewrites_what_was_said_is_refused(tokenizer):
    rewriting = "{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}"
    chat.install(tokenizer, rewriting)
    with pytest.raises(DataError, match="writes earlier messages differently"):
        chat.answers(tokenizer, MESSAGES)


def test_unknown_templates_are_named():
    with pytest.raises(UsageError, match="did you mean 'meditron'"):
        chat.read_template("meditrom")
