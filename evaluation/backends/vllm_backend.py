"""Log-likelihoods, next tokens and generated answers with vLLM, which does its own batching.

Install with `pip install -e '.[vllm]'`.

A continuation of one token is scored as the only token that the model may write after the prompt,
with the probability that it had among all; vLLM keeps the prompt's keys and values for the other
options. Of longer ones vLLM gives the log-probabilities as of a part of the prompt, and computes
each from its beginning.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import generation, model_folder
from evaluation.backends.base import WHOLE, Part, own_batches
from evaluation.backends.encoding import GenerationRequest, Request
from galen.errors import DataError, UsageError, install, one_line

Input = tuple[list[int], dict[str, Any]]
"""Token ids, and the arguments of `vllm.SamplingParams` for them."""


class VllmBackend:
    """A model in vLLM on `tensor_parallel` GPUs, with the methods of `TransformersBackend`.

    Args:
        model: a Hugging Face folder.
        dtype: float32, bfloat16 or float16, or None for the type of the weights.
        tensor_parallel: GPUs that share the model.

    Raises:
        UsageError: vLLM is not installed.
        DataError: a folder is missing or does not hold what it should.
    """

    batch_tokens = 1 << 18
    """vLLM makes its own batches of what it is given at once.

    After this many tokens items are written.
    """

    def __init__(
        self, model: str | Path, dtype: str | None = None, tensor_parallel: int = 1, **options: Any
    ) -> None:
        try:
            import vllm
        except ImportError:
            raise UsageError(f"--backend vllm: vLLM is not installed; {install('vllm')}") from None
        folder = model_folder.check_model(model)
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
        self.device, self.dtype = "vllm", str(configuration.dtype).removeprefix("torch.")
        # the last token of a continuation, and the one written after it
        self.context_length: int | None = configuration.max_model_len - 2
        ends = self.engine.get_default_sampling_params().stop_token_ids or []
        self._ends = generation.end_tokens(self.tokenizer, ends)

    def log_likelihoods(
        self,
        requests: Sequence[Request],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield each request's place and the log-likelihoods (nats) of its continuations."""
        sizes = {
            place: sum(len(request.prompt) + len(item) for item in request.continuations)
            for place, request in enumerate(requests)
        }
        for _, batch in own_batches([range(len(requests))], sizes, max_batch_tokens, done, part):
            pairs = [(place, item) for place in batch for item in requests[place].continuations]
            outputs = self._ask([scored(requests[place].prompt, item) for place, item in pairs])
            values = iter(
                [
                    likelihood(output, len(requests[place].prompt), item)
                    for (place, item), output in zip(pairs, outputs, strict=True)
                ]
            )
            yield [
                (place, [next(values) for _ in requests[place].continuations]) for place in batch
            ]

    def next_tokens(
        self,
        requests: Sequence[Request],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Yield the same, and the likeliest token of the entire vocabulary after the prompt."""
        for batch in self.log_likelihoods(requests, max_batch_tokens, done, part):
            outputs = self._ask([(requests[place].prompt, _GREEDY) for place, _ in batch])
            yield [
                (place, values, output.outputs[0].token_ids[0])
                for (place, values), output in zip(batch, outputs, strict=True)
            ]

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        max_batch_tokens: int,
        done: Collection[int] = (),
        part: Part = WHOLE,
    ) -> Iterator[list[tuple[int, list[str]]]]:
        """Yield each request's place and its answers, one per sample."""
        sizes = {place: request.input_length for place, request in enumerate(requests)}
        for _, batch in own_batches([range(len(requests))], sizes, max_batch_tokens, done, part):
            outputs = iter(
                self._ask(
                    [item for place in batch for item in written(requests[place], self._ends)]
                )
            )
            yield [
                (
                    place,
                    [
                        self._text(next(outputs).outputs[0].token_ids, requests[place])
                        for _ in requests[place].seeds
                    ],
                )
                for place in batch
            ]

    def _text(self, ids: Sequence[int], request: GenerationRequest) -> str:
        return generation.text(self.tokenizer, list(ids), request, self._ends)

    def _ask(self, inputs: Sequence[Input]) -> list[Any]:
        from vllm import SamplingParams

        prompts = [{"prompt_token_ids": ids} for ids, _ in inputs]
        return self.engine.generate(
            prompts, [SamplingParams(**parameters) for _, parameters in inputs], use_tqdm=False
        )


_GREEDY: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}


def scored(prompt: list[int], continuation: list[int]) -> Input:
    """Return what vLLM is asked for the log-likelihood of a continuation."""
    if len(continuation) == 1:
        return prompt, _GREEDY | {"logprobs": 0, "allowed_token_ids": list(continuation)}
    return prompt + continuation, _GREEDY | {"prompt_logprobs": 0}


def likelihood(output: Any, prompt_length: int, continuation: list[int]) -> float:
    """Return the log-likelihood (nats) of a continuation from vLLM's reply to `scored`."""
    if len(continuation) == 1:
        return float(output.outputs[0].logprobs[0][continuation[0]].logprob)
    given = output.prompt_logprobs[prompt_length:]
    return sum(
        float(by_token[token].logprob) for by_token, token in zip(given, continuation, strict=True)
    )


def written(request: GenerationRequest, ends: Collection[int]) -> list[Input]:
    """Return vLLM's inputs for the answers to a prompt, one for each sample, with its own seed."""
    parameters = {
        "max_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "stop_token_ids": sorted(ends),
    }
    if request.stop:
        parameters["stop"] = list(request.stop)
    seeds = [int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6]) for seed in request.seeds]
    return [(request.prompt, parameters | {"seed": seed}) for seed in seeds]
