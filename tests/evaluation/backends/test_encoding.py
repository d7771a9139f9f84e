"""Prompts and answers as token ids, with post-processors and merges as in published models."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from evaluation.backends.encoding import (
    Request,
    encode_document,
    encode_letters,
    encode_pair,
    encode_text,
    leading_special_tokens,
    tokens_by_text,
    truncate_left,
)
from evaluation.prompts.template import Prompt
from galen.errors import DataError

BOS, EOS, MASK = "<s>", "</s>", "[gMASK]"
PROCESSORS = {
    "none": None,
    "bos": f"{BOS} $A",
    "eos": f"$A {EOS}",
    "both": f"{BOS} $A {EOS}",
    "two": f"{MASK} {BOS} $A {EOS}",
}
LEADING = {"none": [], "bos": [0], "eos": [], "both": [0], "two": [2, 0]}
PROMPT = Prompt("Question: 7?\nAnswer:", {"A": " A", "B": " B", "C": " C"})


def make(processor="none", merges=()):
    """A byte-level BPE tokenizer in which ` A`, ` B`, ` C` are tokens, and `merges` besides."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", letter) for letter in "ABC"] + list(merges)
    vocabulary = dict.fromkeys(
        [BOS, EOS, MASK, *alphabet, *(first + second for first, second in merges)]
    )
    tokenizer = Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(vocabulary)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if PROCESSORS[processor]:
        special = [
            (token, vocabulary_id) for token, vocabulary_id in ((BOS, 0), (EOS, 1), (MASK, 2))
        ]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=PROCESSORS[processor], special_tokens=special
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_only_what_the_tokenizer_puts_before_a_text_is_added(processor):
    tokenizer = make(processor)
    assert leading_special_tokens(tokenizer) == LEADING[processor]
    bare = tokenizer.encode("Answer:", add_special_tokens=False)
    assert encode_text(tokenizer, "Answer:") == LEADING[processor] + bare
    for letter in "ABC":
        ids, added = encode_pair(tokenizer, "Answer:", f" {letter}")
        assert ids == LEADING[processor] + bare
        assert tokenizer.convert_ids_to_tokens(added) == [f"Ġ{letter}"]
    assert encode_pair(tokenizer, "Answer: ", "A") == encode_pair(tokenizer, "Answer:", " A")
    request, letters = encode_letters(tokenizer, PROMPT, tokens_by_text(tokenizer, "ABC"))
    assert request.prompt == encode_text(tokenizer, PROMPT.text) and sorted(set(letters)) == [
        "A",
        "B",
        "C",
    ]


def test_a_text_that_begins_with_bos_gets_no_second_one():
    tokenizer = make("both")
    assert encode_text(tokenizer, f"{BOS}Hi") == encode_text(tokenizer, "Hi")
    assert encode_pair(tokenizer, f"{BOS}Hi", " A") == encode_pair(tokenizer, "Hi", " A")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_token_across_the_seam(processor):
    tokenizer = make(processor, merges=[(":", "ĠB")])
    assert len(tokenizer.encode(": B", add_special_tokens=False)) == 1
    answers = {letter: encode_pair(tokenizer, "Answer:", f" {letter}") for letter in "ABC"}
    assert {tuple(prompt) for prompt, _ in answers.values()} == {
        tuple(encode_text(tokenizer, "Answer:"))
    }
    assert [tokenizer.convert_ids_to_tokens(added) for _, added in answers.values()] == [
        ["ĠA"],
        ["ĠB"],
        ["ĠC"],
    ]


def test_a_line_break_that_swallows_the_space_too():
    tokenizer = make("bos", merges=[(":", "ĠB"), ("Ċ", "ĠB")])
    assert tokenizer.convert_ids_to_tokens(encode_pair(tokenizer, "Answer:", " B")[1]) == ["ĠB"]


@pytest.mark.parametrize("processor", ["none", "bos"])
def test_lm_evaluation_harness_gives_the_same_ids(processor):
    """Where nothing is appended and no token spans the seam.

    With a BOS the harness is told to let the tokenizer add it.
    """
    huggingface = pytest.importorskip(
        "lm_eval.models.huggingface", reason="lm-eval is in the extra `test`"
    )
    tokenizer = make(processor)
    harness = object.__new__(huggingface.HFLM)
    harness.tokenizer, harness.backend, harness.add_bos_token, harness.custom_prefix_token_id = (
        tokenizer,
        "causal",
        None,
        None,
    )
    for prompt, continuation in (
        ("Question: 7?\nAnswer:", " A"),
        ("Is it so? ", "yes, of course"),
        ("血圧:\n", "高い"),
        ("a  ", " b"),
    ):
        assert encode_pair(tokenizer, prompt, continuation) == harness._encode_pair(
            prompt, continuation
        )


def test_nothing_to_score_is_an_error():
    with pytest.raises(DataError, match="no token for '' after 'Answer:'"):
        encode_pair(make(), "Answer:", "")
    with pytest.raises(DataError, match="no token for ' A' after ''"):
        encode_pair(make("bos"), "", " A")
    tokenizer = make()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(DataError, match="neither a BOS nor an EOS token"):
        encode_document(tokenizer, "text", 8)


def test_cut_keeps_the_end_of_the_prompt():
    request = Request([1, 2, 3, 4, 5], [[6], [7, 8, 9]])
    assert request.input_length == 7
    assert truncate_left(request, 7) is request
    assert truncate_left(request, 5).prompt == [3, 4, 5]
    assert truncate_left(request, 1).prompt == [5]
