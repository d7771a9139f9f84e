"""Log-likelihoods, next tokens and generated answers with vLLM, which does its own batching.

Install with `pip install -e '.[vllm]'`.

A continuation of one token is scored as the only token that the model may generate after the
prompt, with its probability among all tokens; vLLM caches the prompt's keys and values for the
other options. For a longer one vLLM returns the log-probabilities as of prompt tokens, and computes
each from its first token.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import generation, model_folder, vllm_adapter
from evaluation.backends.base import Batching
from evaluation.backends.encoding import Generated, GenerationRequest, Request
from galen.errors import DataError, UsageError, install, one_line

Input = tuple[list[int], dict[str, Any]]
"""Token ids, and the arguments of `vllm.SamplingParams` for them."""


class VllmBackend:
    """A model in vLLM on `tensor_parallel` GPUs, with the methods of `TransformersBackend`.

    Args:
        model: a Hugging Face folder.
        adapter: a LoRA adapter's folder on top of it, or None.
        dtype: float32, bfloat16 or float16, or None for the type of the weights.
        tensor_parallel: GPUs that share the model.

    Raises:
        UsageError: vLLM is not installed, or does not support the adapter.
        DataError: a folder is missing or does not hold what it should.
    """

    batch_tokens = 1 << 18
    """Default of `Batching.max_tokens`: vLLM makes its own batches within these.

    Samples are saved after each.
    """

    def __init__(
        self,
        model: str | Path,
        adapter: str | Path | None = None,
        dtype: str | None = None,
        tensor_parallel: int = 1,
        **options: Any,
    ) -> None:
        try:
            import vllm
        except ImportError:
            raise UsageError(f"--backend vllm: vLLM is not installed; {install('vllm')}") from None
        folder = model_folder.check_model(model)
        self._adapter: Any = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            path = model_folder.check_adapter(adapter)
            options |= vllm_adapter.engine_options(path, folder)
            self._adapter = LoRARequest(path.resolve().name or "adapter", 1, str(path.resolve()))
        try:
            self.engine = vllm.LLM(
                str(folder),
                dtype=dtype or "auto",
                tensor_parallel_size=tensor_parallel,
                logprobs_mode="raw_logprobs",
                trust_remote_code=False,
                **options,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"vLLM cannot load {folder}: {one_line(error)}") from error
        self.tokenizer = self.engine.get_tokenizer()
        configuration = self.engine.llm_engine.model_config
        self.device = "vllm"
        self.dtype = str(configuration.dtype).removeprefix("torch.")
        # less the last token of a continuation, and the one generated after it
        self.context_length: int | None = configuration.max_model_len - 2
        configured = self.engine.get_default_sampling_params().stop_token_ids or []
        self._end_ids = generation.end_token_ids(self.tokenizer, configured)

    def log_likelihoods(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield each request's index and the log-likelihoods (nats) of its continuations."""
        for batch in self.log_likelihoods_and_greedy(requests, batching):
            yield [(index, values) for index, values, _ in batch]

    def log_likelihoods_and_greedy(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], list[bool]]]]:
        """Yield the same, with whether greedy decoding gives each continuation."""
        lengths = {index: _num_tokens(request) for index, request in enumerate(requests)}
        for _, batch in batching.batches([range(len(requests))], lengths):
            by_token = self._adapter is not None
            inputs: list[Input] = []
            for index in batch:
                request = requests[index]
                for item in request.continuations:
                    inputs += scoring_inputs(request.prompt, item, by_token)
            outputs = iter(self._ask(inputs))
            yield [(index, *_scores(requests[index], outputs, by_token)) for index in batch]

    def next_tokens(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield the same, and the most likely token of the entire vocabulary after the prompt."""
        for batch in self.log_likelihoods(requests, batching):
            outputs = self._ask([(requests[index].prompt, _GREEDY) for index, _ in batch])
            yield [
                (index, values, output.outputs[0].token_ids[0])
                for (index, values), output in zip(batch, outputs, strict=True)
            ]

    def generate(
        self, requests: Sequence[GenerationRequest], batching: Batching
    ) -> Iterator[list[tuple[int, list[Generated]]]]:
        """Yield each request's index and its answers, one per seed."""
        lengths = {index: request.input_length for index, request in enumerate(requests)}
        for _, batch in batching.batches([range(len(requests))], lengths):
            inputs: list[Input] = []
            for index in batch:
                inputs += generated(requests[index], self._end_ids)
            outputs = iter(self._ask(inputs))
            yield [(index, self._answers(requests[index], outputs)) for index in batch]

    def _answers(self, request: GenerationRequest, outputs: Iterator[Any]) -> list[Generated]:
        """Return the answers to a request from the next outputs, one per seed."""
        answers = []
        for output in itertools.islice(outputs, len(request.seeds)):
            ids = list(output.outputs[0].token_ids)
            answers.append(generation.answer(self.tokenizer, ids, request, self._end_ids))
        return answers

    def _ask(self, inputs: Sequence[Input]) -> list[Any]:
        prompts = [{"prompt_token_ids": ids} for ids, _ in inputs]
        parameters = [_sampling_params(parameters) for _, parameters in inputs]
        if self._adapter is None:
            return self.engine.generate(prompts, parameters, use_tqdm=False)
        return self.engine.generate(prompts, parameters, use_tqdm=False, lora_request=self._adapter)


def _sampling_params(parameters: dict[str, Any]) -> Any:
    """Return vLLM's object for the arguments of an input; a JSON schema guides the decoding."""
    import vllm.sampling_params

    parameters = dict(parameters)
    schema = parameters.pop("json_schema", None)
    if schema is not None:
        guide = vllm.sampling_params.StructuredOutputsParams(json=schema)
        parameters["structured_outputs"] = guide
    return vllm.sampling_params.SamplingParams(**parameters)


_GREEDY: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}


def scored(prompt: list[int], continuation: list[int]) -> Input:
    """Return vLLM's input for the log-likelihood of a continuation."""
    if len(continuation) == 1:
        return prompt, _GREEDY | {"logprobs": 0, "allowed_token_ids": list(continuation)}
    return prompt + continuation, _GREEDY | {"prompt_logprobs": 0}


def scoring_inputs(prompt: list[int], continuation: list[int], by_token: bool) -> list[Input]:
    """Return vLLM's inputs for the log-likelihood of a continuation.

    With `by_token` one for each token, after those before it: vLLM's log-probabilities of prompt
    tokens fail with an adapter.
    """
    if not by_token:
        return [scored(prompt, continuation)]
    return [
        scored(prompt + continuation[:number], [token]) for number, token in enumerate(continuation)
    ]


def likelihood(output: Any, prompt_length: int, continuation: list[int]) -> float:
    """Return the log-likelihood (nats) of a continuation from vLLM's reply to `scored`."""
    return sum(float(entry.logprob) for entry in _entries(output, prompt_length, continuation))


def is_greedy(output: Any, prompt_length: int, continuation: list[int]) -> bool:
    """Return whether greedy decoding gives a continuation, from vLLM's reply to `scored`."""
    return all(entry.rank == 1 for entry in _entries(output, prompt_length, continuation))


def _entries(output: Any, prompt_length: int, continuation: list[int]) -> list[Any]:
    """Return log-probability and rank of each token of a continuation."""
    if len(continuation) == 1:
        return [output.outputs[0].logprobs[0][continuation[0]]]
    logprobs = output.prompt_logprobs[prompt_length:]
    return [by_token[token] for by_token, token in zip(logprobs, continuation, strict=True)]


def _num_tokens(request: Request) -> int:
    """Return the tokens of all inputs of a request."""
    return sum(len(request.prompt) + len(item) for item in request.continuations)


def _scores(
    request: Request, outputs: Iterator[Any], by_token: bool
) -> tuple[list[float], list[bool]]:
    """Return log-likelihoods, and which continuations are greedy, from the next outputs."""
    values = []
    greedy = []
    for continuation in request.continuations:
        # each with its prompt's length and its tokens
        parts = [(len(request.prompt), continuation)]
        if by_token:
            parts = [(len(request.prompt), [token]) for token in continuation]
        scored_parts = [(next(outputs), *part) for part in parts]
        values.append(sum(likelihood(*part) for part in scored_parts))
        greedy.append(all(is_greedy(*part) for part in scored_parts))
    return values, greedy


def generated(request: GenerationRequest, end_ids: Collection[int]) -> list[Input]:
    """Return vLLM's inputs for the answers to a prompt, each with its own seed."""
    parameters: dict[str, Any] = {
        "max_tokens": request.max_new_tokens,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "top_k": request.sampling.top_k,
        "repetition_penalty": request.sampling.repetition_penalty,
        "stop_token_ids": sorted(end_ids),
    }
    if request.json_schema:
        parameters["json_schema"] = request.json_schema
    if request.stop:
        parameters["stop"] = list(request.stop)
    seeds = [int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6]) for seed in request.seeds]
    return [(request.prompt, parameters | {"seed": seed}) for seed in seeds]
