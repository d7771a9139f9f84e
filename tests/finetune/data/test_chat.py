from pathlib import Path

import pytest

from finetune.data import chat, sample
from finetune.data.record import Conversation
from finetune.data.sample import IGNORE_INDEX, Item
from galen.errors import DataError, UsageError
from tests.conftest import ROOT

GPT_OSS = Path(__file__).parents[2] / "evaluation/chat_models/templates/gpt_oss.jinja"
MESSAGES = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is  it?\n"},
    {"role": "assistant", "content": "α-blockers, 5 mg\nNot ß."},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": " Nothing 什么"},
)
RENDERED = {
    "meditron": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>question\nWhat is  it?\n<|im_end|>\n"
        "<|im_start|>answer\nα-blockers, 5 mg\nNot ß.<|im_end|>\n"
        "<|im_start|>question\nAnd?<|im_end|>\n<|im_start|>answer\n Nothing 什么<|im_end|>\n"
    ),
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is  it?\n<|im_end|>\n"
        "<|im_start|>assistant\nα-blockers, 5 mg\nNot ß.<|im_end|>\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n Nothing 什么<|im_end|>\n"
    ),
}


def runs(made, tokenizer):
    """Return the text of each run of tokens in the loss."""
    found, run = [], []
    for label in [*made.labels, IGNORE_INDEX]:
        if label != IGNORE_INDEX:
            run.append(label)
        elif run:
            found.append(tokenizer.decode(run))
            run = []
    return found


@pytest.mark.parametrize("template", sorted(RENDERED))
def test_a_conversation_is_rendered_and_its_answers_are_in_the_loss_token_by_token(
    tokenizer, template
):
    chat.install(tokenizer, chat.read_template(template))
    (made,), cut = sample.encode([Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, 1000)
    assert chat.render(tokenizer, MESSAGES) == RENDERED[template]
    assert (
        made.tokens == tokenizer.encode(RENDERED[template], add_special_tokens=False) and cut == 0
    )
    assert [label for label in made.labels if label != IGNORE_INDEX] == [
        token
        for token, label in zip(made.tokens, made.labels, strict=True)
        if label != IGNORE_INDEX
    ]
    first, second = runs(made, tokenizer)
    assert first == "α-blockers, 5 mg\nNot ß.<|im_end|>"
    assert second.strip() == "Nothing 什么<|im_end|>"
    # the line break behind "answer" is given, not learnt
    assert not tokenizer.decode([made.tokens[made.first_label - 1]]).strip()


def test_answers_of_gpt_oss_are_final_messages_and_the_last_ends_generation(tokenizer):
    marks = ("start", "channel", "message", "end", "return")
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in marks]})
    chat.install(tokenizer, GPT_OSS.read_text())
    (made,), _ = sample.encode([Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, 2000)
    assert made.tokens == tokenizer.encode(
        chat.render(tokenizer, MESSAGES), add_special_tokens=False
    )
    final = "<|channel|>final<|message|>"
    first, second = runs(made, tokenizer)
    # the template writes <|return|> behind the last message alone
    assert first == f"{final}α-blockers, 5 mg\nNot ß."
    assert second == f"{final} Nothing 什么<|return|>"
    assert chat.end_of_answer(tokenizer) == tokenizer.convert_tokens_to_ids("<|return|>")


def test_old_messages_go_first_and_the_system_message_stays(tokenizer):
    chat.install(tokenizer, chat.read_template("meditron"))
    (whole,), _ = sample.encode([Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, 1000)
    (made,), cut = sample.encode(
        [Item(Conversation("1", MESSAGES), "lm_eval")], tokenizer, len(whole) - 1
    )
    assert cut == 1
    assert tokenizer.decode(made.tokens) == chat.render(tokenizer, [MESSAGES[0], *MESSAGES[3:]])


def test_an_answer_that_is_too_long_is_cut_but_never_to_nothing(tokenizer):
    chat.install(tokenizer, chat.read_template("meditron"))
    item = Item(Conversation("1", MESSAGES[1:3]), "lm_eval")
    (whole,), _ = sample.encode([item], tokenizer, 1000)
    for length in range(whole.first_label + 1, len(whole) + 1):
        (made,), _ = sample.encode([item], tokenizer, length)
        assert (
            len(made) == length
            and made.labels[made.first_label :] == whole.labels[whole.first_label : length]
        )
    with pytest.raises(DataError, match=r"1 of 1 .*raise data\.max_length"):
        sample.encode([item], tokenizer, whole.first_label)


def test_generation_stops_at_the_mark_behind_an_answer(tokenizer):
    chat.install(tokenizer, chat.read_template("meditron"))
    assert chat.end_of_answer(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_marks_that_are_no_tokens_are_reported(tiny_tokenizer):
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(tiny_tokenizer)
    with pytest.raises(
        UsageError, match=r"add them: model.add_tokens=\['<\|im_end\|>', '<\|im_start\|>'\]"
    ):
        chat.install(bare, chat.read_template("meditron"))
    with pytest.raises(UsageError, match="no chat template"):
        chat.install(AutoTokenizer.from_pretrained(tiny_tokenizer), None)


def test_a_template_that_rewrites_what_was_said_is_refused(tokenizer):
    rewriting = "{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}"
    chat.install(tokenizer, rewriting)
    with pytest.raises(DataError, match="writes earlier messages differently"):
        chat.answers(tokenizer, MESSAGES)


def test_gemma_3_has_one_bos_and_ends_answers_with_its_mark(tiny_tokenizer):
    """Tokenizer and template both write BOS; the template takes the system message."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny_tokenizer)
    made.add_special_tokens(
        {
            "bos_token": "<bos>",
            "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        }
    )
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", made.bos_token_id)]
    )
    template = ROOT / "tests/evaluation/chat_models/templates/gemma3.jinja"
    chat.install(made, chat.read_template(str(template)))
    messages = [*MESSAGES[:1], {"role": "user", "content": "What is it?"}, *MESSAGES[2:]]
    (encoded,), _ = sample.encode([Item(Conversation("1", messages), "lm_eval")], made, 1000)
    assert encoded.tokens.count(made.bos_token_id) == 1
    assert made.decode(encoded.tokens).startswith(
        "<bos><start_of_turn>user\nBe brief.\n\nWhat is it?<end_of_turn>\n<start_of_turn>model\n"
    )
    first, second = runs(encoded, made)
    assert (first, second.strip()) == (
        "α-blockers, 5 mg\nNot ß.<end_of_turn>",
        "Nothing 什么<end_of_turn>",
    )
    assert chat.end_of_answer(made) == made.convert_tokens_to_ids("<end_of_turn>")


def test_unknown_templates_are_named():
    with pytest.raises(UsageError, match="did you mean 'meditron'"):
        chat.read_template("meditrom")


USER, ASSISTANT = "<|user|>", "<|assistant|>"
LOOP = "{% for m in messages %}"
END = "{% endfor %}"
OPEN = "{% if add_generation_prompt %}### assistant: {% endif %}"
ASKED = "{% if add_generation_prompt %}assistant: {% endif %}"
NEW_TURN = "{% if add_generation_prompt %}<|assistant|>"
ANSWERS = ("One.<|im_end|>", "Two.<|im_end|>", "<|im_end|>")
TEMPLATES = {
    # kind: (template, label of the first answer, of the last, the token that ends generation)
    "no mark": (
        LOOP + "### {{ m.role }}: {{ m.content }}\n" + END + OPEN,
        *("One.", "Two.<eos>", "<eos>"),
    ),
    "a line break ends": (
        LOOP + "{{ m.role }}: {{ m.content }}\n\n" + END + ASKED,
        *("One.", "Two.<eos>", "<eos>"),
    ),
    "a mark between turns only": (
        LOOP
        + "### {{ m.role }}: {{ m.content }}{% if not loop.last %}<|sep|>{% endif %}"
        + END
        + "{% if add_generation_prompt %}<|sep|>### assistant: {% endif %}",
        *("One.", "Two.<eos>", "<eos>"),
    ),
    "words for a mark": (
        LOOP + "### {{ m.role }}: {{ m.content }}\n### End\n" + END + OPEN,
        *("One.", "Two.<eos>", "<eos>"),
    ),
    "end of sequence behind the last turn only": (
        LOOP
        + "### {{ m.role }}: {{ m.content }}\n"
        + END
        + "{% if add_generation_prompt %}### assistant: {% else %}{{ eos_token }}{% endif %}",
        *("One.", "Two.\n<eos>", "<eos>"),
    ),
    "end of sequence behind each answer": (
        LOOP
        + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        + "{% else %} {{ m.content }} {{ eos_token }}{% endif %}"
        + END,
        *(" One. <eos>", " Two. <eos>", "<eos>"),
    ),
    "a mark, and end of sequence behind the whole": (
        LOOP
        + "<|{{ m.role }}|>{{ m.content }}<|im_end|>"
        + END
        + NEW_TURN
        + "{% else %}{{ eos_token }}{% endif %}",
        *ANSWERS,
    ),
    "system merged into the first question": (
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
        + "{% set messages = messages[1:] %}{% endif %}"
        + LOOP
        + "{{ m.role }}: {% if loop.first and s %}{{ s }} {% endif %}{{ m.content }}<|im_end|>\n"
        + END
        + ASKED,
        *ANSWERS,
    ),
    "content stripped": (
        LOOP + "{{ m.role }}: {{ m.content | trim }}<|im_end|>\n" + END + ASKED,
        *ANSWERS,
    ),
    "a generation block": (
        LOOP
        + "{{ m.role }}: {% if m.role == 'assistant' %}"
        + "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        + "{% else %}{{ m.content }}{% endif %}\n"
        + END
        + ASKED,
        *ANSWERS,
    ),
    "today's date": (
        "{{ strftime_now('%d %b %Y') }}\n"
        + LOOP
        + "{{ m.role }}: {{ m.content }}<|im_end|>"
        + END
        + ASKED,
        *ANSWERS,
    ),
    "the next role's mark behind the whole": (
        LOOP + "<|{{ m.role }}|>{{ m.content }}" + END + NEW_TURN + "{% else %}<|user|>{% endif %}",
        *("One.", "Two.<eos>", "<eos>"),
    ),
    "no opening of an answer": (
        LOOP + "{{ m.role }}: {{ m.content }}<|im_end|>" + END,
        *("assistant: One.<|im_end|>", "assistant: Two.<|im_end|>", "<|im_end|>"),
    ),
}


@pytest.fixture
def marked(tiny_tokenizer):
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny_tokenizer)
    made.add_special_tokens(
        {
            "additional_special_tokens": [
                "<|im_start|>",
                "<|im_end|>",
                "<|sep|>",
                "<|user|>",
                "<|assistant|>",
            ]
        }
    )
    return made


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_ends_an_answer_is_trained_and_ends_generation(marked, name):
    template, first, last, end = TEMPLATES[name]
    chat.install(marked, template)
    said = ("Which?", "One.", "And?", "Two.")
    messages = tuple(
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant"] * 2, said, strict=True)
    )
    if name.startswith("system"):
        messages = ({"role": "system", "content": "Be brief."}, *messages)
    (made,), _ = sample.encode([Item(Conversation("1", messages), "lm_eval")], marked, 1000)
    eos = marked.eos_token
    assert runs(made, marked) == [text.replace("<eos>", eos) for text in (first, last)]
    assert chat.end_of_answer(marked) == marked.convert_tokens_to_ids(end.replace("<eos>", eos))
    if name == "today's date":
        assert marked.decode(made.tokens).startswith("26 Jul 2024")
    text = marked.decode(made.tokens)
    whole = chat.render(marked, messages)
    assert text == whole or text == whole[: whole.index("Two.") + 4] + eos


def test_a_template_that_ends_no_answer_is_refused_where_there_is_no_end_of_sequence(marked):
    chat.install(marked, TEMPLATES["no mark"][0])
    marked.eos_token = None
    with pytest.raises(UsageError, match="no answer would ever end"):
        chat.end_of_answer(marked)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOP + "{{ m.content | upper }}" + END, "changes what the assistant says"),
        (LOOP + "{{ m.content.nothing.at_all }}" + END, "refuses a conversation"),
        (LOOP + "{{ m.content + 1 }}" + END, "refuses a conversation"),
        ("{% for", "refuses a conversation"),
        (
            LOOP + "{{ m.content }}{{ '\\ud800' }}" + END,
            "refuses a conversation .*surrogates not allowed",
        ),
    ],
)
def test_templates_that_fail_are_reported_in_one_message(marked, template, message):
    marked.chat_template = template
    with pytest.raises(DataError, match=message):
        chat.answers(marked, MESSAGES)


def test_a_template_file_of_another_encoding_is_reported(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8"):
        chat.read_template(str(tmp_path / "a.jinja"))
