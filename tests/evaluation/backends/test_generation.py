"""Next tokens and written answers against Hugging Face's own `generate`, one prompt at a time."""

import warnings
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from evaluation.backends import encoding, generation, growing_cache
from evaluation.backends.base import Batching
from evaluation.backends.encoding import GenerationRequest, Request
from evaluation.backends.prefix_groups import common_prefix_length
from evaluation.backends.sampling import Sampling
from evaluation.backends.transformers_backend import TransformersBackend
from evaluation.prompts.registry import Prompt

SHARED = "The patients received aspirin for twelve weeks, and the dose was halved. "
PROMPTS = [
    SHARED + end
    for end in (
        "Heart",
        "Liver failure in adults",
        "A",
        "血圧 was lowered by 5 %",
        "Kidney and sodium",
    )
]


@pytest.fixture(scope="module")
def backend(tiny_llama):
    return TransformersBackend(tiny_llama, device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_llama):
    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval()


def requests(backend, temperature=0.0, num_samples=1, stop=(), length=24):
    return [
        GenerationRequest(
            backend.tokenizer.encode(text),
            length,
            stop,
            Sampling(temperature=temperature),
            tuple(f"{text}\n{n}" for n in range(num_samples)),
        )
        for text in PROMPTS
    ]


def answers(backend, found, max_batch_tokens=10_000):
    return [
        [answer.text for answer in answers]
        for _, answers in sorted(
            pair for batch in backend.generate(found, Batching(max_batch_tokens)) for pair in batch
        )
    ]


@pytest.mark.parametrize("max_batch_tokens", [1, 10_000])
def test_greedy_answers_are_those_of_generate(backend, reference, tiny_llama, max_batch_tokens):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    # the shared prefix is computed separately
    assert common_prefix_length([request.prompt for request in requests(backend)]) > 16
    for text, [found] in zip(
        PROMPTS, answers(backend, requests(backend), max_batch_tokens), strict=True
    ):
        ids = torch.tensor([tokenizer.encode(text)])
        whole = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )
        new = whole[0, ids.shape[1] :].tolist()
        assert found == tokenizer.decode(new[:-1] if new[-1] == 0 else new)


def test_long_answers_of_a_batch_with_other_ends_are_those_of_generate(
    backend, reference, monkeypatch
):
    """Rows end one after another, and the cache outgrows its buffers several times."""
    monkeypatch.setattr(growing_cache, "_ROOM", 7)
    limits = [40, 3, 64, 17, 40]
    rows = [
        replace(request, max_new_tokens=limit)
        for request, limit in zip(requests(backend), limits, strict=True)
    ]
    for _ in range(2):  # the same cache of the shared prefix
        [batch] = list(backend.generate(rows, Batching(10_000)))
        for index, [found] in batch:
            ids = torch.tensor([rows[index].prompt])
            expected = reference.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limits[index],
                do_sample=False,
                pad_token_id=0,
            )
            assert list(found.ids) == expected[0, ids.shape[1] :].tolist()


def test_no_deprecated_argument_is_passed(backend):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*past_key_values")
        answers(backend, requests(backend, length=3))


def test_a_stop_string_ends_the_answer_and_is_cut_off(backend):
    [[whole], *_] = answers(backend, requests(backend))
    stop = whole[3:5]
    [[found], *_] = answers(backend, requests(backend, stop=(stop,)))
    assert found == whole[: whole.index(stop)]


def test_samples_differ_and_do_not_depend_on_the_batch(backend):
    together = answers(backend, requests(backend, temperature=0.8, num_samples=4))
    alone = answers(backend, requests(backend, temperature=0.8, num_samples=4), max_batch_tokens=1)
    assert together == alone
    assert all(len(set(texts)) > 1 for texts in together)


def test_sampling_follows_the_distribution(backend, reference):
    prompt = backend.tokenizer.encode(PROMPTS[0])
    request = GenerationRequest(
        prompt, 1, (), Sampling(temperature=0.8), tuple(map(str, range(2000)))
    )
    [[(_, found)]] = list(backend.generate([request], Batching(10**6)))
    texts = [answer.text for answer in found]
    with torch.no_grad():
        probabilities = (reference(torch.tensor([prompt])).logits[0, -1] / 0.8).softmax(-1)
    likeliest = int(probabilities.argmax())
    share = texts.count(backend.tokenizer.decode([likeliest])) / 2000
    assert share == pytest.approx(float(probabilities[likeliest]), abs=4 * (0.25 / 2000) ** 0.5)


def test_next_tokens_with_a_shared_prefix(backend, reference):
    found = [Request(backend.tokenizer.encode(text), [[5], [77], [130, 9]]) for text in PROMPTS]
    for batch in backend.next_tokens(found, Batching(200)):
        for index, values, top in batch:
            with torch.no_grad():
                logits = (
                    reference(torch.tensor([[*found[index].prompt, 130]])).logits[0].log_softmax(-1)
                )
            last = len(found[index].prompt) - 1
            expected = [
                logits[last, 5].item(),
                logits[last, 77].item(),
                (logits[last, 130] + logits[last + 1, 9]).item(),
            ]
            assert values == pytest.approx(expected, abs=1e-5)
            assert top == int(logits[last].argmax())


def test_several_processes_share_the_batches(backend):
    found = [Request([2 + n] * (3 + n), [[5]]) for n in range(12)]
    parts = [
        [
            index
            for batch in backend.log_likelihoods(found, Batching(30, rank=rank, world_size=3))
            for index, _ in batch
        ]
        for rank in range(3)
    ]
    assert sorted(index for part in parts for index in part) == list(range(12))
    assert all(parts)


def test_letters_have_all_tokens_of_their_text(backend):
    class Vocabulary:
        def __len__(self):
            return 7

        def batch_decode(self, rows):
            return [["A", " A", "a", "Yes", " yes", "A.", "yes\n"][row[0]] for row in rows]

    assert encoding.tokens_by_text(Vocabulary(), {"A", "yes"}) == {"A": [0, 1], "yes": [3, 4, 6]}
    tokens = encoding.tokens_by_text(backend.tokenizer, {"A", "yes"})
    assert {backend.tokenizer.decode([token]).strip() for token in tokens["A"]} == {"A"}
    request, letters = encoding.encode_letters(
        backend.tokenizer, Prompt("Answer:(", {"A": "A", "B": " B"}), {"A": [7, 9], "B": [8]}
    )
    assert (request.continuations, letters) == ([[7], [9], [8]], ["A", "A", "B"])
    assert request.prompt == backend.tokenizer.encode("Answer:(")


@pytest.mark.parametrize("sampling", [Sampling(repetition_penalty=1.8)])
def test_a_repetition_penalty_is_that_of_generate(backend, reference, sampling):
    for text in PROMPTS[:2]:
        ids = torch.tensor([backend.tokenizer.encode(text)])
        expected = reference.generate(
            ids, max_new_tokens=24, do_sample=False, repetition_penalty=1.8, pad_token_id=0
        )
        request = GenerationRequest(ids[0].tolist(), 24, (), sampling, ("",))
        [[(_, [answer])]] = list(backend.generate([request], Batching(10**6)))
        assert list(answer.ids) == expected[0, ids.shape[1] :].tolist()
        assert answer.num_tokens == len(answer.ids)
        assert answer.finished == (answer.ids[-1] in (0, backend.tokenizer.eos_token_id))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.7, 5, 1.0), (1.0, 0, 0.2), (1.3, 40, 0.5)]
)
def test_top_k_and_top_p_leave_the_tokens_that_transformers_leaves(temperature, top_k, top_p):
    logits = torch.randn(300, generator=torch.Generator().manual_seed(1)) * 3
    expected = logits[None] / temperature
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    probabilities = (logits.double() / temperature).softmax(-1)
    found = generation._restricted(
        probabilities, Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    )
    assert found / found.sum() == pytest.approx(expected[0].double().softmax(-1), abs=1e-7)


def test_sampling_draws_from_what_top_k_leaves(backend):
    prompt = backend.tokenizer.encode(PROMPTS[0])
    seeds = tuple(map(str, range(400)))
    sampling = Sampling(temperature=2.0, top_k=3)
    request = GenerationRequest(prompt, 1, (), sampling, seeds)
    [[(_, found)]] = list(backend.generate([request], Batching(10**6)))
    assert len({answer.ids for answer in found}) == 3
