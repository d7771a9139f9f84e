"""The backend as a model of the harness, and filters of recorded responses."""

import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from evaluation.backends.base import Batching
from evaluation.backends.encoding import Generated, Request
from evaluation.backends.endpoint import Endpoint
from evaluation.backends.openai_backend import OpenAIBackend
from evaluation.backends.transformers_backend import TransformersBackend
from evaluation.chat_models.conversation import Conversation
from evaluation.chat_models.thinking import Markers
from evaluation.harness import benchmark, results, task_index
from evaluation.harness.benchmark import ChatFormat
from evaluation.harness.lm import BackendLM
from evaluation.harness.local_datasets import LocalDatasets
from evaluation.tasks.task import LmEvalTask


@pytest.fixture(scope="module")
def backend(long_llama):
    return TransformersBackend(long_llama, device="cpu")


def test_filters_are_the_tasks_own(harness_data):
    """Strict and flexible extraction of GSM8K, exactly as the harness scores the texts."""
    gsm8k = benchmark.load(LmEvalTask(task="gsm8k"), harness_data)
    documents = gsm8k.documents(4)
    right = [document.number + 105 + 2 for document in documents]
    texts = [
        f"So it is {right[0]}.\n#### {right[0]}",  # both
        f"The answer is {right[1]}.",  # flexible only
        f"#### {right[2]}\nand then 7 more",  # strict only
        "I do not know",
    ]

    class Writer(LM):
        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

        def generate_until(self, requests):
            return [texts[request.doc_id] for request in requests]

    samples = []
    instances = gsm8k.requests(BackendLMWithoutModel(), documents, ChatFormat())
    for document, of_document, text in zip(documents, instances, texts, strict=True):
        samples.append(gsm8k.sample(document, of_document, [[text]]))
    assert [sample["metrics"] for sample in samples] == [
        {"exact_match,strict-match": strict, "exact_match,flexible-extract": flexible}
        for strict, flexible in ((1, 1), (0, 1), (1, 0), (0, 0))
    ]
    assert [sample["score"] for sample in samples] == [1, 0, 1, 0]
    evaluated = results.evaluate(gsm8k, documents, samples, ChatFormat())
    entry = results.entry(gsm8k, evaluated, samples)
    assert entry["primary_metric"] == "exact_match,strict-match"
    assert {name: item["value"] for name, item in entry["metrics"].items()} == {
        "exact_match,strict-match": 0.5,
        "exact_match,flexible-extract": 0.5,
    }
    with LocalDatasets(harness_data, "gsm8k").redirect():
        expected = lm_eval.simple_evaluate(
            model=Writer(), tasks=["gsm8k"], limit=4, task_manager=task_index.manager(None)
        )
    for key in ("exact_match,strict-match", "exact_match_stderr,strict-match"):
        assert evaluated["results"]["gsm8k"][key] == expected["results"]["gsm8k"][key]


class BackendLMWithoutModel:
    """What rendering prompts as plain text needs of a model: nothing."""

    conversation = None


def instance(context, request_type="generate_until", argument=None):
    """A request of the harness."""
    return Instance(
        request_type=request_type,
        doc={},
        arguments=(context, argument or {"until": ["\n\n"], "max_gen_toks": 4000}),
        idx=0,
        metadata=("task", 0, 1),
    )


def test_an_endpoint_gets_prompts_in_full(tmp_path):
    """It alone knows its context's length, and without a tokenizer, ids are characters."""
    endpoint = Endpoint(base_url="http://localhost:1/v1", model_name="m", route="completions")
    lm = BackendLM(OpenAIBackend(endpoint, tmp_path))
    long = "word " * 3000
    [generated] = lm.encode([[instance(long)]])
    assert generated.max_new_tokens == 4000 and len(generated.prompt) == len(long)
    [scored] = lm.encode([[instance(long + "end", "loglikelihood", " yes")]])
    assert len(scored.prompt) == len(long + "end") and not lm.truncated


class Answering:
    """A backend that gives one answer."""

    context_length = 64
    batch_tokens = 1

    def __init__(self, tokenizer, answer):
        self.tokenizer = tokenizer
        self.answer = answer

    def generate(self, requests, batching):
        yield [(index, [self.answer]) for index in range(len(requests))]


@pytest.mark.parametrize(
    ("text", "finished", "response", "is_cut_off"),
    [
        ("So 3.</think>\n\n#### 4\n\nMore", True, "#### 4", False),
        ("So #### 3", False, "", True),
    ],
)
def test_thinking_that_the_template_opens_is_no_answer(
    backend, text, finished, response, is_cut_off
):
    conversation = Conversation(
        tokenizer=backend.tokenizer,
        template="{{ messages }}",
        variables={},
        markers=Markers("<think>", "</think>"),
    )
    answering = Answering(backend.tokenizer, Generated(text, 7, finished))
    lm = BackendLM(answering, conversation=conversation)
    [[(index, responses)]] = lm.answer([[instance("Q<think>\n" * 30)]], Batching(1))
    assert responses == [[response]]
    assert lm.answers[index] == {
        "num_tokens": [7],
        "reached_limit": [not finished],
        "truncated_thinking": [is_cut_off],
    }
    assert lm.truncated == {0}


@pytest.mark.parametrize("by_rows", [False, True])
def test_greedy_flags_agree_with_greedy_decoding(backend, monkeypatch, by_rows):
    import torch

    if by_rows:  # as for models with a sliding window
        monkeypatch.setattr(TransformersBackend, "_can_share_prefixes", lambda *_: False)
    prompts = [[0, 5, 9], [0, 7], [0, 30, 31, 32]]
    requests, expected = [], []
    for prompt in prompts:
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(3):
                ids.append(int(backend.runner.model(torch.tensor([ids])).logits[0, -1].argmax()))
        greedy = ids[len(prompt) :]
        wrong_end = [*greedy[:2], (greedy[2] + 1) % 300]
        requests.append(Request(prompt, [greedy, wrong_end, greedy[:1], [greedy[0], 299]]))
        expected.append([True, False, True, greedy[1] == 299])
    found = {}
    for batch in backend.log_likelihoods_and_greedy(requests, Batching(40)):
        found |= {index: flags for index, _, flags in batch}
    assert [found[index] for index in range(3)] == expected


def test_simple_evaluate_takes_the_backend(backend, harness_data):
    """The class that the harness' users may take directly."""
    with LocalDatasets(harness_data, "arc_easy").redirect():
        found = lm_eval.simple_evaluate(
            model=BackendLM(backend),
            tasks=["arc_easy", "nq_open", "wikitext"],
            limit=2,
            gen_kwargs="max_gen_toks=4",
            bootstrap_iters=0,
            task_manager=task_index.manager(None),
        )
    assert found["results"]["arc_easy"]["acc,none"] in (0, 0.5, 1)
    assert len(found["samples"]["nq_open"]) == 2
    assert found["results"]["wikitext"]["word_perplexity,none"] > 1
