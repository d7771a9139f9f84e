from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from evaluation.backends import encoding
from evaluation.prompts.registry import LIKELIHOOD_TEMPLATES, TEMPLATES, get_template
from evaluation.question_sets import question
from evaluation.question_sets.question import Question
from finetune.data import sample
from finetune.data.record import PromptCompletion
from finetune.data.sample import IGNORE_INDEX, Item
from galen.errors import DataError


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


QUESTION = Question(
    id="1",
    context="30 adults took Heparin every day.",
    question="What?",
    options={"A": "Aspirin", "B": "Heparin"},
    answer="B",
)


def answer(made):
    return [label for label in made.labels if label != IGNORE_INDEX]


def ids(items):
    return {item.record.id for item in items}


@pytest.mark.parametrize("protocol", sorted(LIKELIHOOD_TEMPLATES))
def test_the_loss_is_on_the_answer_token_by_token(tiny, protocol):
    (made,), cut = sample.encode([Item(QUESTION, protocol)], tiny, 200)
    prompt = get_template(protocol)(QUESTION)
    target = prompt.continuations["B"]
    ids = tiny.encode(prompt.text + target)
    assert made.tokens == ids and cut == 0
    spans = tiny(prompt.text + target, return_offsets_mapping=True)["offset_mapping"]
    for label, token, (start, _) in zip(made.labels, ids, spans, strict=True):
        assert label == (token if start >= len(prompt.text) else IGNORE_INDEX)
    assert tiny.decode([label for label in made.labels if label != IGNORE_INDEX]) == target


@pytest.mark.parametrize("protocol", sorted(LIKELIHOOD_TEMPLATES))
def test_training_and_test_read_the_same_tokens(tiny, protocol):
    (made,), _ = sample.encode([Item(QUESTION, protocol)], tiny, 200)
    request = encoding.encode_prompt(tiny, get_template(protocol)(QUESTION))
    assert made.tokens == request.prompt + request.continuations[1]
    assert made.first_label == len(request.prompt)


def test_a_long_context_is_cut_at_its_end_and_the_answer_stays(tiny):
    (whole,), _ = sample.encode([Item(QUESTION, "lm_eval")], tiny, 500)
    (made,), cut = sample.encode([Item(QUESTION, "lm_eval")], tiny, len(whole) - 4)
    assert cut == 1 and answer(made) == answer(whole)
    assert len(whole) - 30 < len(made) <= len(whole) - 4
    text = tiny.decode(made.tokens[: made.first_label])
    assert text.startswith("30 adults took") and "every day." not in text
    assert text.endswith("\n\nQuestion: What?\nA. Aspirin\nB. Heparin\nAnswer:")


def test_the_context_goes_altogether_where_none_fits(tiny):
    bare = Question(id="1", context="", question="What?", options=QUESTION.options, answer="B")
    (expected,), _ = sample.encode([Item(bare, "lm_eval")], tiny, 500)
    assert sample.encode([Item(QUESTION, "lm_eval")], tiny, len(expected)) == ([expected], 1)


def test_questions_that_never_fit_are_counted_and_named(tiny):
    with pytest.raises(
        DataError,
        match=(
            r"1 of 1 records are longer than data\.max_length = 10 .*'1'; raise data\.max_length to"
            r" \d+ "
        ),
    ) as told:
        sample.encode([Item(QUESTION, "lm_eval")], tiny, 10)
    needed = int(str(told.value).split(" to ")[1].split()[0])
    assert len(sample.encode([Item(QUESTION, "lm_eval")], tiny, needed)[0]) == 1
    with pytest.raises(DataError):
        sample.encode([Item(QUESTION, "lm_eval")], tiny, needed - 1)


def test_no_prompt_ends_in_the_end_of_sequence_that_a_tokenizer_appends(tiny_tokenizer):
    """A post-processor that writes BOS before a text and EOS after it, as some models' do."""
    from tokenizers.processors import TemplateProcessing

    made = AutoTokenizer.from_pretrained(tiny_tokenizer)
    made.add_special_tokens({"bos_token": "<s>"})
    (plain,), _ = sample.encode(
        [Item(PromptCompletion("1", "Yes or no?", " yes"), "lm_eval")], made, 100
    )
    tokens = [("<s>", made.bos_token_id), ("<|endoftext|>", made.eos_token_id)]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=tokens
    )
    assert made.encode("x")[-1] == made.eos_token_id
    (found,), _ = sample.encode(
        [Item(PromptCompletion("1", "Yes or no?", " yes"), "lm_eval")], made, 100
    )
    assert found.tokens == [made.bos_token_id, *plain.tokens]
    assert found.tokens.count(made.eos_token_id) == 1 and answer(found) == answer(plain)


def test_split_hangs_on_the_id_alone(question_file):
    questions = question.read(question_file)
    items = [Item(found, "lm_eval") for found in questions]
    train, validation = sample.split(items, 0.25)
    assert ids(train) | ids(validation) == ids(items)
    assert 3 <= len(validation) <= 18
    _, reversed_validation = sample.split(reversed(items), 0.25)
    assert ids(reversed_validation) == ids(validation)


WORDY = replace(QUESTION, rationale="Heparin  was taken, as is said.")


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_each_template_has_the_prompt_alone_and_then_the_answer_and_its_end(tokenizer, template):
    """Built from the template's two texts: the prompt as encoded by an evaluator, then the answer.

    The answer is the target and its end.
    """
    (made,), _ = sample.encode([Item(WORDY, template)], tokenizer, 2000)
    prompt = get_template(template)(WORDY)
    learnt = tokenizer.decode([label for label in made.labels if label != IGNORE_INDEX])
    end = (
        ""
        if template in LIKELIHOOD_TEMPLATES
        else "<|im_end|>"
        if template.startswith("meditron_chat")
        else tokenizer.eos_token
    )
    assert learnt.lstrip() == prompt.target.lstrip() + end
    assert all(
        label in (IGNORE_INDEX, token)
        for label, token in zip(made.labels, made.tokens, strict=True)
    )
    # nothing behind the answer's first token is left out
    assert made.labels[made.first_label :].count(IGNORE_INDEX) == 0
    assert made.tokens[: made.first_label] == tokenizer.encode(
        prompt.text.rstrip() if template in LIKELIHOOD_TEMPLATES else prompt.text
    )


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("Yes or no?", " yes"), ("Yes or no? ", "yes"), ("Write:", ":::"), ("Eins\n", "\nzwei")],
)
def test_a_completion_is_trained_complete_with_its_end(tokenizer, prompt, completion):
    (made,), _ = sample.encode(
        [Item(PromptCompletion("1", prompt, completion), "lm_eval")], tokenizer, 1000
    )
    assert made.tokens[: made.first_label] == tokenizer.encode(prompt.rstrip(" "))
    learnt = tokenizer.decode(made.labels[made.first_label :])
    assert learnt.lstrip(" ") == completion.lstrip(" ") + tokenizer.eos_token
    text = tokenizer.decode(made.tokens, skip_special_tokens=True)
    assert text.replace(" ", "") == (prompt + completion).replace(" ", "")


def test_a_long_prompt_loses_its_beginning_but_for_bos(tokenizer):
    pair = PromptCompletion("1", "one two three four five six", " seven")
    (whole,), _ = sample.encode([Item(pair, "lm_eval")], tokenizer, 1000)
    for length in range(4, len(whole)):
        (made,), cut = sample.encode([Item(pair, "lm_eval")], tokenizer, length)
        assert len(made) <= length and cut == 1 and made.first_label < len(made)
        if (
            whole.tokens[0] == tokenizer.bos_token_id
            and tokenizer.encode("x")[0] == tokenizer.bos_token_id
        ):
            assert made.tokens[0] == tokenizer.bos_token_id
        spared = answer(whole)[: len(answer(made))]
        assert answer(made) == spared  # only ever cut at its end
