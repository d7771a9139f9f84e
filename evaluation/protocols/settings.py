"""A recipe's settings of a protocol: which a protocol supports, and in what range."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from evaluation.prompts import chat
from evaluation.prompts.registry import get_template
from evaluation.protocols.protocol import Protocol
from galen.errors import UsageError

_GENERATION = (
    "num_samples",
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "answer_format",
    "guided_decoding",
    "thinking_markers",
    "thinking_budget",
    "budget_forcing",
)
"""Settings of protocols that generate."""
_CONVERSATION = ("system_prompt", "fewshot_as_multiturn", "chat_template_kwargs")
"""Settings of protocols with a chat template."""
_RESERVED = (
    "messages",
    "conversations",
    "chat_template",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "return_assistant_tokens_mask",
)
"""Names that `--chat-template-kwargs` may not have: they are the renderer's own."""


def replace(name: str, protocol: Protocol, overrides: Mapping[str, Any]) -> Protocol:
    """Return a protocol with settings in place of its own.

    Args:
        name: of the protocol.
        protocol: with its own settings.
        overrides: attributes of a protocol, by name.

    Raises:
        UsageError: it does not support one, or a value is out of range.
    """
    for key in _GENERATION:
        if key in overrides and protocol.scoring != "generation":
            raise UsageError(f"{_option(key)} is for protocols that generate; {name} does not")
    _check_few_shot(name, protocol, overrides)
    _check_sampling(name, protocol, overrides)
    _check_ranges(overrides)
    answer_format = overrides.get("answer_format")
    changed = dict(overrides)
    if answer_format is not None:
        changed["template"] = _template(name, protocol, answer_format)
    if "max_new_tokens" in overrides:
        changed["model_max_new_tokens"] = False
    variables = overrides.get("chat_template_kwargs", {})
    _check_variables(variables)
    if "enable_thinking" in variables:
        changed["enable_thinking"] = variables["enable_thinking"]
    result = dataclasses.replace(protocol, **changed)
    _check_chat_template(name, result, overrides)
    _check_thinking(result)
    return result


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _check_few_shot(name: str, protocol: Protocol, overrides: Mapping[str, Any]) -> None:
    number = overrides.get("num_fewshot", 0)
    if number < 0:
        raise UsageError("--num-fewshot must be at least 0")
    if number and not get_template(protocol.template).supports_few_shot:
        raise UsageError(f"--num-fewshot: the template of {name} takes no few-shot examples")


def _check_sampling(name: str, protocol: Protocol, overrides: Mapping[str, Any]) -> None:
    temperature = overrides.get("temperature", protocol.temperature)
    if overrides.get("num_samples", 1) > 1 and temperature == 0:
        raise UsageError(
            f"--num-samples: {name} decodes greedily, so that all samples would be the same; give"
            " --temperature, or use meditron_sc_cot"
        )


def _check_ranges(overrides: Mapping[str, Any]) -> None:
    ranges = {
        "temperature": lambda value: 0 <= value <= 100,
        "top_p": lambda value: 0 < value <= 1,
        "top_k": lambda value: value >= 0,
        "repetition_penalty": lambda value: 0 < value <= 100,
    }
    words = {
        "temperature": "from 0 to 100",
        "top_p": "above 0 and at most 1",
        "top_k": "at least 0",
        "repetition_penalty": "above 0 and at most 100",
    }
    for key, is_valid in ranges.items():
        if key in overrides and not is_valid(overrides[key]):
            raise UsageError(f"{_option(key)} must be {words[key]}, not {overrides[key]}")


def _template(name: str, protocol: Protocol, answer_format: str) -> str:
    """Return the template of a protocol in another answer format."""
    if not protocol.answer_format:
        raise UsageError(f"--answer-format: {name} has a format of its own; use chat or chat_cot")
    base = protocol.template.removesuffix(f"_{protocol.answer_format}")
    return chat.template_name(base, answer_format)


def _check_chat_template(name: str, protocol: Protocol, overrides: Mapping[str, Any]) -> None:
    """Check the settings of the conversation against the protocol's template."""
    template = get_template(protocol.template)
    if protocol.chat_template == "none":
        for key in _CONVERSATION:
            if overrides.get(key):
                raise UsageError(
                    f"{_option(key)} needs a chat template: --chat-template auto or FILE"
                )
    elif template.required_token:
        raise UsageError(
            f"--chat-template: the prompts of {name} have the chat format of its models already"
        )
    as_turns = overrides.get("fewshot_as_multiturn") and protocol.num_fewshot
    if as_turns and not template.supports_turns:
        raise UsageError(
            f"--fewshot-as-multiturn: the few-shot examples of {name} are one text with the"
            " question"
        )


def _check_variables(variables: Mapping[str, Any]) -> None:
    """Check the variables of a chat template."""
    reserved = sorted(set(variables) & set(_RESERVED))
    if reserved:
        raise UsageError(f"--chat-template-kwargs: {', '.join(reserved)} cannot be set")
    thinking = variables.get("enable_thinking", False)
    if not isinstance(thinking, bool):
        raise UsageError(
            f"--chat-template-kwargs: enable_thinking must be true or false, not {thinking!r}"
        )
    try:
        json.dumps(variables, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--chat-template-kwargs: not JSON: {error}") from None


def _check_thinking(protocol: Protocol) -> None:
    """Check the settings of thinking and answer format against each other."""
    if protocol.thinking_markers is not None and not all(protocol.thinking_markers):
        raise UsageError("--thinking-markers must not be empty")
    if protocol.budget_forcing and protocol.thinking_budget is None:
        raise UsageError("--budget-forcing needs --thinking-budget TOKENS")
    if protocol.budget_forcing and not protocol.answer_format:
        raise UsageError(
            "--budget-forcing asks for the answer in a format that only the protocols chat,"
            " chat_cot and reasoning have"
        )
    if protocol.guided_decoding and (protocol.answer_format != "json" or protocol.chain_of_thought):
        raise UsageError(
            "--guided-decoding forces the answer alone: it needs --answer-format json and the"
            " protocol chat"
        )
