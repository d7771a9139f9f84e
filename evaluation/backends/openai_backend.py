"""A model behind an OpenAI-compatible endpoint as a backend.

Routes: `chat/completions` generates answers and, where the endpoint returns `top_logprobs`, reads
option letters. `completions` also scores continuations, where it echoes the log-probabilities of a
prompt (`echo`, as vLLM and SGLang do). Prompts are sent as text, which the endpoint tokenizes; with
the model's tokenizer at hand as token ids.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.backends import character_tokenizer, openai_replies, request_log
from evaluation.backends.base import Batching
from evaluation.backends.character_tokenizer import CharacterTokenizer
from evaluation.backends.concurrency import concurrently
from evaluation.backends.encoding import (
    Generated,
    GenerationRequest,
    Request,
    TopTokensRequest,
)
from evaluation.backends.endpoint import BYTES_PER_TOKEN, Endpoint, Estimate
from evaluation.backends.openai_client import InvalidReplyError, OpenAIClient, RefusedError
from evaluation.backends.request_log import RequestLog
from galen import pretrained
from galen.errors import DataError, UsageError

CHAT = "chat/completions"
COMPLETIONS = "completions"
_NEW_NAME = "max_completion_tokens"
"""What OpenAI's newer models call max_tokens."""
_MAX_STOPS = 4
"""Stop strings that endpoints take; further ones are applied here."""


_Call = tuple[str, dict[str, Any]]
"""Path of the route, and body."""


class OpenAIBackend:
    """A model at an endpoint, with the methods of `TransformersBackend`.

    Args:
        endpoint: the model.
        folder: of the results, for the replies.

    Raises:
        UsageError: the address is invalid.
        DataError: the tokenizer or the replies of an earlier run cannot be read.
    """

    context_length: int | None = None
    device = "endpoint"
    dtype = "endpoint"
    batch_tokens = 1
    """Each request is sent on its own."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.endpoint = endpoint
        self._client = OpenAIClient(endpoint.base_url, endpoint.key_variable, endpoint.timeout)
        self._takes_new_name = False
        self.log = RequestLog(folder / request_log.NAME)
        self.tokenizer: Any
        if endpoint.tokenizer is None:
            self.tokenizer = CharacterTokenizer(has_chat_template=endpoint.route == "chat")
        else:
            self.tokenizer = pretrained.load_tokenizer(endpoint.tokenizer)

    def log_likelihoods(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Yield each request's index and the log-likelihoods (nats) of its continuations."""
        for index, scores in self._scores(requests, batching):
            yield [(index, [value for value, _ in scores])]

    def log_likelihoods_and_greedy(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], list[bool]]]]:
        """Yield the same, with whether greedy decoding gives each continuation."""

        for index, scores in self._scores(requests, batching):
            if any(is_greedy is None for _, is_greedy in scores):
                raise DataError(
                    f"{self.endpoint.base_url} returns no `top_logprobs` of prompts, from which"
                    " tasks of lm-evaluation-harness read whether an answer is the likeliest; use a"
                    " task of Galen's, or one that generates"
                )
            values = [value for value, _ in scores]
            yield [(index, values, [is_greedy for _, is_greedy in scores])]

    def _scores(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[tuple[int, list[list[Any]]]]:
        """Yield each request's index, and log-likelihood and greediness of its continuations."""

        def score(request: Request) -> list[list[Any]]:
            [call] = self._calls(request)
            _, body = call
            prompts: list[str | list[int]] = body["prompt"]
            scores: list[list[Any]] = self._ask(
                call, lambda reply: self._echoed(reply, request, prompts)
            )
            return scores

        for batch in self._run(score, requests, batching):
            yield from batch

    def next_tokens(
        self, requests: Sequence[Request], batching: Batching
    ) -> Iterator[list[tuple[int, list[float], int]]]:
        """Raise: an endpoint does not return single tokens' probabilities; see `top_tokens`."""
        raise UsageError("--backend openai gives no log-probabilities of chosen tokens")

    def top_tokens(
        self, requests: Sequence[TopTokensRequest], batching: Batching
    ) -> Iterator[list[tuple[int, list[tuple[str, float]]]]]:
        """Yield each request's index and the likeliest next tokens, as text with their logprobs."""

        def top(request: TopTokensRequest) -> list[tuple[str, float]]:
            [call] = self._calls(request)
            reply: list[list[Any]] = self._ask(call, self._top)
            return [(text, value) for text, value in reply]

        yield from self._run(top, requests, batching)

    def generate(
        self, requests: Sequence[GenerationRequest], batching: Batching
    ) -> Iterator[list[tuple[int, list[Generated]]]]:
        """Yield each request's index and its generated answers, one for each seed."""

        def answers(request: GenerationRequest) -> list[Generated]:
            return [self._generated(call, request) for call in self._calls(request)]

        yield from self._run(answers, requests, batching)

    def estimate(self, requests: Iterable[Any]) -> Estimate:
        """Return the requests that are not answered yet, with their tokens and cost."""
        estimate = Estimate()
        for request in requests:
            for path, body in self._calls(request):
                if request_log.key(path, body) not in self.log:
                    estimate.add(body)
        return estimate

    def record(self) -> dict[str, Any]:
        """Return the entry `endpoint` of the results: counts and cost of all requests so far."""
        usage = self.log.usage
        return {
            **self.endpoint.identity(),
            **usage.as_dict(),
            "price_in": self.endpoint.price_in,
            "price_out": self.endpoint.price_out,
            "cost": self.endpoint.cost(usage.prompt_tokens, usage.completion_tokens),
        }

    def _run(
        self, answer: Callable[[Any], Any], requests: Sequence[Any], batching: Batching
    ) -> Iterator[list[Any]]:
        """Yield index and answer of each request that is not done, in the order of the replies."""
        pending = [index for index in range(len(requests)) if index not in batching.done]
        results = concurrently(
            lambda index: answer(requests[index]), pending, self.endpoint.concurrency
        )
        try:
            for index, result in results:
                yield [(index, result)]
        except BaseException:
            self._client.close()  # else the other threads would go on asking
            raise

    def _calls(self, request: Any) -> list[_Call]:
        """Return the route and the body of each call that a request needs."""
        if isinstance(request, Request):
            return [self._scoring_call(request)]
        if isinstance(request, TopTokensRequest):
            return [self._top_call(request)]
        bodies = [self._generation_body(request, seed) for seed in request.seeds]
        return [(self._path, body) for body in bodies]

    @property
    def _path(self) -> str:
        return CHAT if self.endpoint.route == "chat" else COMPLETIONS

    def _prompt(self, ids: list[int]) -> str | list[int]:
        """Return a prompt as it is sent: token ids, or text."""
        if self.endpoint.tokenizer is not None:
            return ids
        text: str = self.tokenizer.decode(ids)
        return text

    def _body(self, ids: list[int]) -> dict[str, Any]:
        """Return the part of a body that the routes have in common."""
        body: dict[str, Any] = {"model": self.endpoint.model_name}
        if self.endpoint.route == "completions":
            return body | {"prompt": self._prompt(ids)}
        body["messages"] = character_tokenizer.messages(self.tokenizer.decode(ids))
        if self.endpoint.chat_template_kwargs:
            body["chat_template_kwargs"] = dict(self.endpoint.chat_template_kwargs)
        return body

    def _scoring_call(self, request: Request) -> _Call:
        """Return the call for the prompt with each continuation, and as text for it alone."""
        if self.endpoint.route == "chat":
            raise UsageError(
                "--route chat returns no log-probabilities of given texts, which this task"
                " compares; use --route completions, or a protocol that generates, such as chat"
            )
        inputs = [request.prompt + continuation for continuation in request.continuations]
        if self.endpoint.tokenizer is None:
            inputs = [request.prompt, *inputs]
        body = {
            "model": self.endpoint.model_name,
            "prompt": [self._prompt(ids) for ids in inputs],
            "max_tokens": 0,
            "echo": True,
            "logprobs": 1,
            "temperature": 0,
        }
        return COMPLETIONS, body

    def _echoed(
        self, reply: dict[str, Any], request: Request, prompts: Sequence[str | list[int]]
    ) -> list[list[Any]]:
        """Return each continuation's log-likelihood, and whether it is greedy, from the echo."""
        choices = openai_replies.choices(reply)
        if len(choices) != len(prompts):
            raise InvalidReplyError(f"{len(choices)} choices for {len(prompts)} prompts")
        choices = sorted(choices, key=_index)
        parts = [
            openai_replies.echoed_prompt(choice, prompt, self.endpoint.base_url)
            for choice, prompt in zip(choices, prompts, strict=True)
        ]
        if self.endpoint.tokenizer is not None:
            start = len(request.prompt)
            return [
                part.score(start, start + len(continuation))
                for part, continuation in zip(parts, request.continuations, strict=True)
            ]
        prompt, *rest = parts
        start = len(prompt.tokens)
        for part in rest:
            if part.tokens[:start] != prompt.tokens or len(part.tokens) <= start:
                raise DataError(
                    "a token of the endpoint's tokenizer spans the end of the prompt"
                    f" …{self._prompt(request.prompt)[-30:]!r} and the beginning of the answer;"
                    " give the model's tokenizer with --tokenizer DIR"
                )
        return [part.score(start, len(part.tokens)) for part in rest]

    def _top_call(self, request: TopTokensRequest) -> _Call:
        body = self._body(request.prompt) | {"max_tokens": 1, "temperature": 0}
        if self.endpoint.route == "completions":
            return COMPLETIONS, body | {"logprobs": self.endpoint.top_logprobs}
        return CHAT, body | {"logprobs": True, "top_logprobs": self.endpoint.top_logprobs}

    def _top(self, reply: dict[str, Any]) -> list[list[Any]]:
        """Return the likeliest tokens with their log-probabilities, the likeliest first."""
        logprobs: Any = openai_replies.choices(reply)[0].get("logprobs")
        try:
            if self.endpoint.route == "completions":
                pairs = list(logprobs["top_logprobs"][0].items())
            else:
                entries = logprobs["content"][0]["top_logprobs"]
                pairs = [(entry["token"], entry["logprob"]) for entry in entries]
            pairs = [[str(text), float(value)] for text, value in pairs if math.isfinite(value)]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            pairs = []
        if not pairs:
            raise DataError(
                f"{self.endpoint.base_url} returns no log-probabilities for {self._path}, which"
                " this protocol reads the option letter from; use a protocol that generates, such"
                " as chat"
            )
        return sorted(pairs, key=lambda pair: -pair[1])

    def _generation_body(self, request: GenerationRequest, seed: str) -> dict[str, Any]:
        sampling = request.sampling
        body = self._body(request.prompt) | {
            "max_tokens": request.max_new_tokens,
            "temperature": sampling.temperature,
        }
        if request.stop:
            body["stop"] = list(request.stop[:_MAX_STOPS])
        if sampling.temperature:
            # 31 bits: some endpoints take no more
            digest = hashlib.sha256(seed.encode()).digest()
            body["seed"] = int.from_bytes(digest[:4]) >> 1
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        if request.json_schema:
            body["response_format"] = _response_format(request.json_schema)
        return body

    def _generated(self, call: _Call, request: GenerationRequest) -> Generated:
        reply = self._ask(call, openai_replies.answer)
        thinking, text = openai_replies.split_thinking(reply["text"])
        for stop in request.stop:
            text = text.split(stop)[0]
        text = thinking + text
        num_tokens = reply["num_tokens"]
        if num_tokens is None:
            num_tokens = math.ceil(len(reply["text"].encode()) / BYTES_PER_TOKEN)
        is_stopped = text != reply["text"]
        return Generated(text, num_tokens, is_stopped or not reply["truncated"])

    def _send(
        self, path: str, body: dict[str, Any], parse: Callable[[dict[str, Any]], Any]
    ) -> tuple[Any, int]:
        """Send a request; where the endpoint wants the newer name of max_tokens, with that."""
        sent = self._renamed(body)
        try:
            return self._client.post(path, sent, parse)
        except RefusedError as error:
            if _NEW_NAME in str(error) and _NEW_NAME not in sent:
                self._takes_new_name = True
                return self._client.post(path, self._renamed(body), parse)
            if "response_format" in body:
                raise RefusedError(
                    f"{error}; if the endpoint has no JSON schemas, give --no-guided-decoding"
                ) from None
            if "logprobs" in body:
                needed = (
                    "several prompts, `echo` and `logprobs`" if "echo" in body else "`logprobs`"
                )
                raise RefusedError(
                    f"{error}; this task needs {path} with {needed}: use a protocol that generates,"
                    " such as chat, if the endpoint lacks them"
                ) from None
            raise

    def _renamed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a body with the name of max_tokens that the endpoint takes."""
        if not self._takes_new_name:
            return body
        return {_NEW_NAME if key == "max_tokens" else key: value for key, value in body.items()}

    def _ask(self, call: _Call, read: Callable[[dict[str, Any]], Any]) -> Any:
        """Return what is read from the reply to a call, of an earlier run if there is one."""
        path, body = call
        key = request_log.key(path, body)
        known = self.log.get(key)
        if known is not None:
            return known
        record: dict[str, Any] = {}

        def parse(reply: dict[str, Any]) -> Any:
            value = read(reply)
            record.update(openai_replies.counted(reply, value))
            return value

        value, retries = self._send(path, body, parse)
        self.log.append(key, value, retries=retries, **record)
        return value


def _response_format(schema: str) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": json.loads(schema)},
    }


def _index(choice: dict[str, Any]) -> int:
    """Return the number of the prompt that a choice belongs to."""
    index = choice.get("index")
    return index if isinstance(index, int) else 0
