"""The settings of an endpoint in a recipe: their checks, and the model that they name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evaluation.backends.endpoint import Endpoint
from evaluation.backends.openai_client import OpenAIClient
from evaluation.protocols.protocol import Protocol
from evaluation.tasks.task import PerplexityTask, Task
from galen.errors import MissingInputError, UsageError

_TOP_LOGPROBS = {"chat": 20, "completions": 5}
"""Most that OpenAI's own routes take."""
_ONLY_OPENAI = ("base_url", "model_name", "tokenizer", "top_logprobs", "price_in", "price_out")
"""Keys without effect with other backends."""
_NOT_OPENAI = {
    "model": "the endpoint has the model: see --model-name",
    "iterations": "the endpoint has the model",
    "adapter": "name it by --model-name, as vLLM serves adapters",
    "device": "the endpoint has its own devices",
    "dtype": "the endpoint has its own precision",
    "max_batch_tokens": "see --concurrency",
    "thinking_budget": "the endpoint's thinking cannot be continued",
}
"""Keys that the backend openai refuses, with the reason."""


def check(options: Any, settings: Protocol) -> None:
    """Check the settings of an endpoint, or that there are none for another backend.

    Args:
        options: the recipe.
        settings: its protocol.

    Raises:
        UsageError: one is missing, wrong or not supported.
    """
    if options.backend != "openai":
        for key in _ONLY_OPENAI:
            if getattr(options, key) is not None:
                raise UsageError(f"{_option(key)} goes with --backend openai")
        return
    for key, reason in _NOT_OPENAI.items():
        if getattr(options, key):
            raise UsageError(f"--backend openai takes no {_option(key)}: {reason}")
    if options.processes > 1:
        raise UsageError("--backend openai takes no --processes: see --concurrency")
    if not options.base_url or not options.model_name:
        raise UsageError("--backend openai needs --base-url URL and --model-name NAME")
    if not options.request_timeout > 0:
        raise UsageError("--request-timeout must be above 0")
    _check_prices(options)
    OpenAIClient(options.base_url, options.api_key_variable)
    _check_route(options, settings)


def _check_prices(options: Any) -> None:
    for key in ("price_in", "price_out"):
        price = getattr(options, key)
        if price is not None and not 0 <= price < 1e9:
            raise UsageError(f"{_option(key)} must be at least 0")


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _check_route(options: Any, settings: Protocol) -> None:
    """Check that a route can serve a protocol."""
    if options.tokenizer is not None:
        if options.route == "chat":
            raise UsageError("--tokenizer goes with --route completions")
        if not options.tokenizer.is_dir():
            raise MissingInputError(f"--tokenizer: there is no folder {options.tokenizer}")
    if options.route == "completions":
        if settings.guided_decoding:
            raise UsageError("--guided-decoding goes with --route chat")
        return
    if settings.scoring == "likelihood":
        raise UsageError(
            f"the protocol {options.protocol} compares log-probabilities of given texts, which"
            " --route chat does not return; use --route completions, where the endpoint has `echo`"
            " (vLLM, SGLang), or a protocol that generates, such as chat"
        )
    if settings.chat_template not in ("auto", "none"):
        raise UsageError("--chat-template FILE: with --route chat the endpoint has the template")


def check_tasks(options: Any, tasks: Mapping[str, Task]) -> None:
    """Check that an endpoint can serve the tasks.

    Raises:
        UsageError: one scores documents, whose first token needs the model's tokenizer.
    """
    if options.backend != "openai" or options.tokenizer is not None:
        return
    for name, task in tasks.items():
        if isinstance(task, PerplexityTask):
            raise UsageError(
                f"task {name}: perplexity at an endpoint needs --route completions with the model's"
                " tokenizer: --tokenizer DIR"
            )


def endpoint(options: Any, settings: Protocol) -> Endpoint | None:
    """Return the endpoint of a checked recipe; None with another backend."""
    if options.backend != "openai":
        return None
    number = options.top_logprobs
    return Endpoint(
        base_url=options.base_url,
        model_name=options.model_name,
        route=options.route,
        tokenizer=options.tokenizer,
        top_logprobs=_TOP_LOGPROBS[options.route] if number is None else number,
        concurrency=options.concurrency,
        timeout=options.request_timeout,
        key_variable=options.api_key_variable,
        price_in=options.price_in,
        price_out=options.price_out,
        chat_template_kwargs=settings.chat_template_kwargs if options.route == "chat" else {},
    )


def resolve(settings: Protocol) -> Protocol:
    """Return a protocol for an endpoint: greedy where it leaves sampling to the model.

    Raises:
        UsageError: several answers would be the same.
    """
    neutral = Protocol(settings.template)
    keys = ("temperature", "top_p", "top_k", "repetition_penalty")
    missing = {key: getattr(neutral, key) for key in keys if getattr(settings, key) is None}
    resolved = dataclasses.replace(settings, **missing)
    if resolved.num_samples > 1 and not resolved.temperature:
        raise UsageError(
            "--num-samples: decoding is greedy, so that all samples would be the same; give"
            " --temperature"
        )
    return resolved
