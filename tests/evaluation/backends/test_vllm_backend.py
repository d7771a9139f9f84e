"""Requests to vLLM and the parsing of its replies.

Where vLLM is installed (no test dependency), against transformers.
"""

import importlib.util
import sys
import types
from types import SimpleNamespace

import pytest

from evaluation import run
from evaluation.backends import vllm_backend
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
        (["--backend", "vllm", "--adapter", "adapter"], "takes no --adapter"),
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


@needs_vllm
def test_the_same_answers_as_with_transformers(make_llama):
    from evaluation.backends.transformers_backend import TransformersBackend

    model = make_llama(
        num_hidden_layers=2, hidden_size=128, max_position_embeddings=256, initializer_range=0.1
    )
    ours = TransformersBackend(model, device="cpu")
    theirs = vllm_backend.VllmBackend(model, "float32", enforce_eager=True)
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
