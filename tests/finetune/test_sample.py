import pytest
from transformers import AutoTokenizer

from evaluation import encoding, prompts, question
from evaluation.question import Question
from finetune import sample
from finetune.sample import IGNORED
from galen.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


QUESTION = Question(
    id="1", context="30 adults took Heparin every day.", question="What?", options={"A": "Aspirin", "B": "Heparin"}, answer="B"
)


@pytest.mark.parametrize("protocol", sorted(prompts.PROTOCOLS))
def test_the_loss_is_on_the_answer_token_by_token(tokenizer, protocol):
    (made,), cut = sample.encode([QUESTION], tokenizer, protocol, 200)
    prompt = prompts.form(protocol)(QUESTION)
    target = prompt.continuations["B"]
    ids = tokenizer.encode(prompt.text + target)
    assert made.prompt + made.answer == ids and cut == 0
    spans = tokenizer(prompt.text + target, return_offsets_mapping=True)["offset_mapping"]
    for label, token, (start, _) in zip(made.labels, ids, spans, strict=True):
        assert label == (token if start >= len(prompt.text) else IGNORED)
    assert tokenizer.decode([label for label in made.labels if label != IGNORED]) == target


@pytest.mark.parametrize("protocol", sorted(prompts.PROTOCOLS))
def test_training_and_test_read_the_same_tokens(tokenizer, protocol):
    (made,), _ = sample.encode([QUESTION], tokenizer, protocol, 200)
    request = encoding.encode_prompt(tokenizer, prompts.form(protocol)(QUESTION))
    assert made.prompt == request.prompt
    assert made.answer == request.continuations[1]


def test_a_long_context_is_cut_at_its_end_and_the_answer_stays(tokenizer):
    (whole,), _ = sample.encode([QUESTION], tokenizer, "lm_eval", 500)
    (made,), cut = sample.encode([QUESTION], tokenizer, "lm_eval", len(whole) - 4)
    assert cut == 1 and made.answer == whole.answer
    assert len(whole) - 30 < len(made) <= len(whole) - 4
    text = tokenizer.decode(made.prompt)
    assert text.startswith("30 adults took") and "every day." not in text
    assert text.endswith("\n\nQuestion: What?\nA. Aspirin\nB. Heparin\nAnswer:")


def test_the_context_goes_altogether_where_none_fits(tokenizer):
    bare = Question(id="1", context="", question="What?", options=QUESTION.options, answer="B")
    (expected,), _ = sample.encode([bare], tokenizer, "lm_eval", 500)
    assert sample.encode([QUESTION], tokenizer, "lm_eval", len(expected)) == ([expected], 1)


def test_questions_that_never_fit_are_counted_and_named(tokenizer):
    with pytest.raises(DataError, match=r"1 of 1 questions are longer than data\.max_length = 10 .*'1'"):
        sample.encode([QUESTION], tokenizer, "lm_eval", 10)


def test_split_hangs_on_the_id_alone(question_file):
    questions = question.read(question_file)
    train, validation = sample.split(questions, 0.25)
    assert {item.id for item in train} | {item.id for item in validation} == {item.id for item in questions}
    assert 3 <= len(validation) <= 18
    _, reversed_validation = sample.split(reversed(questions), 0.25)
    assert {item.id for item in reversed_validation} == {item.id for item in validation}
