"""Requests to vLLM and the parsing of its replies.

Where vLLM is installed (no test dependency), against transformers.
"""

import importlib.util
import json
import sys
import types
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from evaluation import run
from evaluation.backends import vllm_adapter, vllm_backend
from evaluation.backends.base import Batching
from evaluation.backends.encoding import GenerationRequest, Request
from evaluation.backends.sampling import Sampling
from galen.errors import UsageError

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)


def logprob(value):
    return SimpleNamespace(logprob=value)


def test_a_single_token_is_asked_for_after_the_prompt_and_more_as_part_of_it():
    ids, parameters = vllm_backend.scored([1, 2, 3], [7])
    assert (
        ids == [1, 2, 3]
        and parameters["allowed_token_ids"] == [7]
        and parameters["max_tokens"] == 1
    )
    reply = SimpleNamespace(outputs=[SimpleNamespace(logprobs=[{7: logprob(-0.5)}])])
    assert vllm_backend.likelihood(reply, 3, [7]) == -0.5
    ids, parameters = vllm_backend.scored([1, 2, 3], [7, 8])
    assert ids == [1, 2, 3, 7, 8] and parameters["prompt_logprobs"] == 0
    reply = SimpleNamespace(
        prompt_logprobs=[
            None,
            {2: logprob(-9)},
            {3: logprob(-9)},
            {7: logprob(-0.5), 4: logprob(0)},
            {8: logprob(-2)},
        ]
    )
    assert vllm_backend.likelihood(reply, 3, [7, 8]) == -2.5


def test_each_branch_has_a_seed_of_its_own_that_stays():
    request = GenerationRequest([1, 2], 9, ("###",), Sampling(temperature=0.8), ("a", "b"))
    first, second = vllm_backend.generated(request, {5, 0})
    assert first[1] | {"seed": None} == {
        "max_tokens": 9,
        "temperature": 0.8,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "stop": ["###"],
        "stop_token_ids": [0, 5],
        "seed": None,
    }
    assert first[1]["seed"] != second[1]["seed"]
    assert vllm_backend.generated(request, {5, 0}) == [first, second]


def test_a_json_schema_guides_the_decoding(monkeypatch):
    module = types.ModuleType("vllm.sampling_params")
    module.StructuredOutputsParams = lambda json: {"json": json}
    module.SamplingParams = lambda **parameters: parameters
    package = types.ModuleType("vllm")
    package.sampling_params = module
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", module)
    request = GenerationRequest([1], 9, (), Sampling(), ("a",), json_schema='{"type": "object"}')
    [(_, parameters)] = vllm_backend.generated(request, {0})
    guided = vllm_backend._sampling_params(parameters)
    assert guided["structured_outputs"] == {"json": '{"type": "object"}'}
    assert "json_schema" not in guided and guided["max_tokens"] == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "vllm", "--processes", "2"], "leave out --processes and --device"),
        (["--backend", "vllm", "--iterations", "1,2"], "one model a call"),
        (["--tensor-parallel", "2"], "goes with --backend vllm"),
        pytest.param(
            ["--backend", "vllm"],
            r"pip install -e '\.\[vllm\]'",
            marks=pytest.mark.skipif(
                bool(importlib.util.find_spec("vllm")), reason="vLLM is installed"
            ),
        ),
    ],
)
def test_unsupported_options_are_refused_before_any_work(
    tiny_llama, data, tmp_path, options, message
):
    with pytest.raises(UsageError, match=message):
        run.main(
            [
                "--model",
                str(tiny_llama),
                "--tasks",
                "mesh_topics",
                "--data",
                str(data),
                "--output",
                str(tmp_path / "scores"),
                *options,
            ]
        )


@pytest.fixture
def fake_vllm(monkeypatch):
    """An engine that records its arguments; a token's log-probability is -(id + context) / 100."""

    class LoRARequest:
        def __init__(self, lora_name, lora_int_id, lora_path):
            self.name, self.id, self.path = lora_name, lora_int_id, lora_path

    class LLM:
        def __init__(self, model, **options):
            self.options = options
            self.asked = []
            config = SimpleNamespace(dtype="torch.float32", max_model_len=64)
            self.llm_engine = SimpleNamespace(model_config=config)

        def get_tokenizer(self):
            return SimpleNamespace(eos_token_id=0, convert_tokens_to_ids=lambda _: None)

        def get_default_sampling_params(self):
            return SimpleNamespace(stop_token_ids=[])

        def generate(self, prompts, parameters, use_tqdm, lora_request=None):
            outputs = []
            for prompt, asked in zip(prompts, parameters, strict=True):
                ids = prompt["prompt_token_ids"]
                self.asked.append((ids, asked, lora_request))
                [token] = asked["allowed_token_ids"]
                entry = SimpleNamespace(logprob=-(token + len(ids)) / 100, rank=1)
                outputs.append(
                    SimpleNamespace(outputs=[SimpleNamespace(logprobs=[{token: entry}])])
                )
            return outputs

    module = SimpleNamespace(LLM=LLM)
    request = SimpleNamespace(LoRARequest=LoRARequest)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.lora", SimpleNamespace(request=request))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)
    monkeypatch.setattr(vllm_backend, "_sampling_params", lambda parameters: parameters)
    monkeypatch.setattr(vllm_backend.generation, "end_token_ids", lambda *_: frozenset())


def write_adapter(folder, **config):
    folder.mkdir()
    values = {"peft_type": "LORA", "r": 12, "lora_alpha": 24, "target_modules": ["q_proj"]}
    text = json.dumps(values | config)
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_part_of_each_request(fake_vllm, tiny_llama, tmp_path):
    """Against the documented API of vLLM (LoRARequest): vLLM itself is not installed."""
    adapter = write_adapter(tmp_path / "adapter")
    backend = vllm_backend.VllmBackend(tiny_llama, adapter, "float32")
    assert backend.engine.options["enable_lora"] is True
    assert backend.engine.options["max_lora_rank"] == 16
    requests = [Request([1, 2, 3], [[7], [8, 9]])]
    [[(index, values, greedy)]] = backend.log_likelihoods_and_greedy(requests, Batching(100))
    # each token on its own after those before it: no log-probabilities of prompts
    asked = [(ids, parameters["allowed_token_ids"]) for ids, parameters, _ in backend.engine.asked]
    assert asked == [([1, 2, 3], [7]), ([1, 2, 3], [8]), ([1, 2, 3, 8], [9])]
    assert index == 0 and values == pytest.approx([-0.10, -0.11 - 0.13]) and greedy == [True, True]
    for _, parameters, request in backend.engine.asked:
        assert "prompt_logprobs" not in parameters
        assert (request.name, request.path) == ("adapter", str(adapter))


def test_without_an_adapter_no_request_names_one(fake_vllm, tiny_llama):
    backend = vllm_backend.VllmBackend(tiny_llama, None, "float32")
    assert "enable_lora" not in backend.engine.options
    list(backend.log_likelihoods([Request([1], [[7]])], Batching(100)))
    assert backend.engine.asked[0][2] is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "has DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "trains biases"),
        ({"peft_type": "IA3"}, "is of type IA3"),
        ({"r": 8, "rank_pattern": {"q_proj": 600}}, "has rank 600"),
    ],
)
def test_adapters_that_vllm_does_not_serve_are_refused(tiny_llama, tmp_path, config, message):
    with pytest.raises(UsageError, match=message):
        vllm_adapter.engine_options(write_adapter(tmp_path / "adapter", **config), tiny_llama)


def test_an_adapter_with_tokens_of_its_own_is_refused(tiny_llama, tmp_path):
    adapter = write_adapter(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.save_pretrained(adapter)  # as fine-tuning does: the same tokens
    assert vllm_adapter.engine_options(adapter, tiny_llama)["max_lora_rank"] == 16
    tokenizer.add_tokens(["<|im_start|>"])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(UsageError, match="has tokens of its own"):
        vllm_adapter.engine_options(adapter, tiny_llama)


@needs_vllm
def test_the_same_answers_as_with_transformers(make_llama):
    from evaluation.backends.transformers_backend import TransformersBackend

    model = make_llama(
        num_hidden_layers=2, hidden_size=128, max_position_embeddings=256, initializer_range=0.1
    )
    ours = TransformersBackend(model, device="cpu")
    theirs = vllm_backend.VllmBackend(model, None, "float32", enforce_eager=True)
    requests = [
        Request([9 + n] * 3 + list(range(20, 40 + n)), [[5], [77, 9], [77, 130, 4]])
        for n in range(4)
    ]
    expected, actual = (
        {
            index: rest
            for batch in side.next_tokens(requests, Batching(10**6))
            for index, *rest in batch
        }
        for side in (ours, theirs)
    )
    for index, (values, top) in expected.items():
        assert actual[index][0] == pytest.approx(values, abs=1e-3)
        assert actual[index][1] == top
    prompts = [
        GenerationRequest(request.prompt, 12, (), Sampling(), ("a",)) for request in requests
    ]
    assert sorted(next(iter(theirs.generate(prompts, Batching(10**6))))) == sorted(
        next(iter(ours.generate(prompts, Batching(10**6))))
    )
